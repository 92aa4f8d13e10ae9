"""Customers: they enqueue runs, wait for them or watch them, send signals, and change their minds.

Owns what a client of the application does while its database comes and goes; what it was told is
in the world's file, written after it was told.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from crash.scenarios import write_booking
from durably import Durably, LedgerUnavailable, Run, RunCancelled, TransitionRefused
from soak.workload import MIX, POOR, TAG, Soaked, prompt, some_seconds

AGAIN_SECONDS = 0.2
THREAD_SHARE, WATCHED_SHARE, DELAYED_SHARE = 0.12, 0.2, 0.1
THREAD_RUNS = 4


class Client:
    """Some customers, each with one run or conversation after the other, until the gate opens.

    Args:
        name: begins the keys of its runs; no other client has it, nor had it.
    """

    def __init__(self, site: Soaked, app: Durably, name: str, customers: int) -> None:
        self._site = site
        self._app = app
        self._name = name
        self._customers = customers
        self._numbers = itertools.count(1)
        self._draw = random.Random(name)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as customers:
            for _ in range(self._customers):
                customers.create_task(self._customer())

    async def _customer(self) -> None:
        while not self._site.world.gate_is_open():
            if self._draw.random() < THREAD_SHARE:
                await self._converse()
            else:
                scenario = self._draw.choices([*MIX], [*MIX.values()])[0]
                await self._have_done(scenario, f"{self._name}-{next(self._numbers)}")

    async def _have_done(self, scenario: str, key: str) -> None:
        run = await self._enqueued(scenario, key)
        match scenario:
            case "parked":
                return
            case "listen":
                await self._send(run)
            case "doomed":
                await asyncio.sleep(self._draw.uniform(0, 1))
                await _patiently(lambda: self._call_off(run))
        if self._draw.random() < WATCHED_SHARE:
            await self._watch(run)
        else:
            await _end(run)

    async def _converse(self) -> None:
        """Some runs of one thread; a few interrupt the one before, or steer it."""
        thread = f"{self._name}-thread-{next(self._numbers)}"
        runs: list[Run[Any]] = []
        for number in range(self._draw.randint(2, THREAD_RUNS)):
            busy = self._draw.choices(["queue", "interrupt", "steer"], [6, 1, 2])[0]
            scenario = "note" if busy == "steer" else self._draw.choice(["charge", "ship", "work"])
            runs.append(await self._enqueued(scenario, f"{thread}-{number}", thread, busy))
            await asyncio.sleep(self._draw.uniform(0, 0.2))
        for run in runs:
            await _end(run)

    async def _enqueued(
        self, scenario: str, key: str, thread: str | None = None, busy: Any = "queue"
    ) -> Run[Any]:
        """Ask again, with the same key, until it is acknowledged."""
        delay = 0.5 if self._draw.random() < DELAYED_SHARE else 0.0

        async def enqueue() -> Run[Any]:
            return await self._app.enqueue(
                "clerk",
                prompt(scenario, key),
                key=key,
                tags=[TAG],
                meta={"scenario": scenario},
                delay=delay,
                thread=thread,
                on_busy=busy,
                stream=scenario == "streamed",
                budget=POOR if scenario == "poor" else None,
            )

        run = await (self._order(scenario, key) if scenario == "ordered" else _patiently(enqueue))
        self._site.world.record("acknowledged", key=key, scenario=scenario, busy=busy)
        return run

    async def _order(self, scenario: str, key: str) -> Run[Any]:
        """Enqueue in a transaction of the application's own, with what the run is about."""
        database = self._site.world.database
        orders = f"SELECT key FROM bookings WHERE key = 'order {key}'"
        while True:
            with suppress(LedgerUnavailable, *database.broken), database.transaction() as conn:
                write_booking(conn, f"order {key}")
                await self._app.enqueue(
                    "clerk",
                    prompt(scenario, key),
                    key=key,
                    tags=[TAG],
                    meta={"scenario": scenario},
                    conn=conn,
                )
            # Whoever did not hear whether it was committed looks whether it was.
            if await _patiently(lambda: asyncio.to_thread(self._rows, orders)):
                return await _patiently(lambda: self._app.get(key))
            await asyncio.sleep(AGAIN_SECONDS)

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        database = self._site.world.database
        try:
            return database.rows(sql)
        except database.broken as error:
            raise LedgerUnavailable(str(error)) from error

    async def _send(self, run: Run[Any]) -> None:
        for payload in ("first", "second"):
            await asyncio.sleep(some_seconds() / 4)
            await _patiently(lambda payload=payload: send(self._app, run.key, payload))
            self._site.world.record("signalled", key=run.key, payload=payload)

    async def _call_off(self, run: Run[Any]) -> None:
        with suppress(TransitionRefused):
            await run.cancel(by="customer")

    async def _watch(self, run: Run[Any]) -> None:
        """Follow a run to its end, from the cursor again where the database went away."""
        seen = [event.id async for event in run.watch(deltas=False)]
        self._site.world.record("watched", key=run.key, seen=seen)


async def send(app: Durably, key: str, payload: str) -> None:
    """Send a signal, or send it again: it arrives once."""
    with suppress(TransitionRefused):
        await app.signal(key, "part", payload, signal_id=payload, by="customer")


async def _end(run: Run[Any]) -> None:
    with suppress(RunCancelled):
        await run.result()


async def _patiently[T](ask: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await ask()
        except LedgerUnavailable:
            await asyncio.sleep(AGAIN_SECONDS)
