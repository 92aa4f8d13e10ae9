"""A site to break: a server of its own, a ledger on it, workers, and a client with its runs.

Owns what is started and ended, and what must hold afterwards; what is broken is the tests'.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from crash.databases import PostgresDatabase
from crash.processes import DEADLINE_SECONDS, Processes, eventually, is_alive
from crash.scenarios import BOOKINGS
from crash.undisturbed import logs
from crash.world import World, receipt
from durably import Durably, LedgerUnavailable, TransitionRefused
from faults import children, shift
from support.pace import pace_of_this_machine
from support.postgres_server import PostgresServer

EVERYTHING = os.environ.get("FAULT_TESTS") == "all"
"""Whether this is ``make faults``, which takes minutes; otherwise it is a sample."""

PATIENCE_SECONDS = 240.0
"""For runs to reach their end once nothing is broken any more."""

ALONE: dict[str, Any] = {"oban": {"lifeline": {"rescue_after": 86_400}}}
"""For workers: Oban notices nothing today: whatever comes back was noticed by its lease."""


class Site:
    """One ledger, its workers and its world.

    Attributes:
        url: of the ledger, as workers and clients are told it.
        server: the one that takes writes.
        at_most_once: the tools that nothing may have repeat what they do.
    """

    def __init__(
        self, server: PostgresServer, folder: Path, processes: Processes, url: str | None = None
    ) -> None:
        self.server = server
        self.url = url or server.url()
        self.at_most_once = shift.AT_MOST_ONCE
        self._pace = pace_of_this_machine()
        self._processes = processes
        self._workers: list[BaseProcess] = []
        self._commands: list[Command] = []
        folder.mkdir(exist_ok=True)
        (folder / "url").write_text(self.url)
        self.world = World(folder)
        asyncio.run(_prepare(server.url()))

    @property
    def database(self) -> PostgresDatabase:
        """The ledger's tables, seen by hand."""
        return PostgresDatabase(self.server.url())

    def stretched(self, seconds: float) -> float:
        """A lease, or what is to outlast one, on a machine that may be busy with other things."""
        return seconds * self._pace

    # --- workers

    def start_worker(
        self, life: Callable[..., None] = children.worker, *, wait: bool = True, **options: Any
    ) -> BaseProcess:
        """Start a worker; by default wait until it works. A lease is stretched."""
        if "lease" in options:
            options["lease"] = self.stretched(options["lease"])
        worker = self._processes.start(life, self.world.folder, **options)
        self._workers.append(worker)
        if wait:
            self.wait_until_it_works(worker)
        return worker

    def wait_until_it_works(self, worker: BaseProcess) -> None:
        def works() -> bool:
            assert is_alive(worker), logs(self.world.folder)
            return any(fact["pid"] == worker.pid for fact in self.world.records("ready"))

        eventually("the worker works", works)

    def start_command(self, *options: str) -> Command:
        """Start ``durably worker``, as a process that shares nothing with anybody."""
        command = Command(self.world.folder, len(self._commands), *options)
        self._commands.append(command)
        return command

    def forget(self, worker: Command | BaseProcess) -> None:
        """It has ended, as it was meant to."""
        if isinstance(worker, Command):
            self._commands.remove(worker)
        else:
            self._workers.remove(worker)

    def close(self) -> None:
        """End every command."""
        for command in self._commands:
            command.end()

    def send(self, worker: BaseProcess, number: signal.Signals) -> None:
        assert worker.pid is not None
        os.kill(worker.pid, number)

    # --- clients

    @asynccontextmanager
    async def load(
        self, at_once: int = 6, *, person: bool = False, blamed: bool = False
    ) -> AsyncIterator[Load]:
        """A client that enqueues on and on while the block lasts, and then waits for every run.

        Args:
            person: somebody decides about calls that are in doubt, since a worker died.
            blamed: runs may have lost their worker, which is counted.
        """
        async with shift.app(self.world) as app:
            load = Load(app)
            clients = [asyncio.create_task(load.go_on(n)) for n in range(at_once)]
            clients.append(asyncio.create_task(load.watch_some()))
            decider = asyncio.create_task(load.decide(self.world))
            if not person:
                decider.cancel()
            try:
                yield load
                load.stop()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await asyncio.gather(*clients)
            except TimeoutError:
                raise AssertionError(f"runs have no end:\n{self.unfinished()}") from None
            finally:
                for task in (*clients, decider):
                    task.cancel()
        self.check(load, blamed=blamed)

    def unfinished(self) -> str:
        rows = self.database.rows(
            "SELECT r.key, r.state, r.attempt, r.worker_id, r.job_id, j.state AS job, "
            "j.attempted_by, j.scheduled_at FROM durably_runs r "
            "LEFT JOIN oban_jobs j ON j.id = r.job_id "
            "WHERE r.state NOT IN ('completed', 'discarded', 'cancelled')"
        )
        return "\n".join(map(str, rows)) + "\n" + logs(self.world.folder)

    # --- what must hold

    def check(self, load: Load, *, blamed: bool = False) -> None:
        """Every promise, once all acknowledged runs are through."""
        rows = {row["key"]: row for row in self.database.rows("SELECT * FROM durably_runs")}
        assert load.acknowledged <= rows.keys(), "an acknowledged run is gone"
        assert load.acknowledged == load.finished
        attempts = self._attempts()
        for key in load.acknowledged:
            assert rows[key]["state"] == "completed", rows[key]
            # It was the database, not the run, nor any worker.
            crashes = 0 if blamed else rows[key]["crashes"]
            assert (rows[key]["failures"], crashes) == (0, 0), (rows[key], attempts[key])
        self._check_effects(load, attempts)
        self._check_bill(load, attempts, overlapping=blamed)
        self._check_watched(load)
        self.check_jobs()
        if not blamed:
            blamed_jobs = "SELECT * FROM oban_jobs WHERE errors <> '[]'"
            assert not self.database.rows(blamed_jobs), "nor was it any job"
        assert all(is_alive(worker) for worker in self._workers), logs(self.world.folder)
        assert all(command.process.poll() is None for command in self._commands)

    def wait_for_runs(self, runs: int) -> None:
        """Wait until there are so many."""
        count = "SELECT count(*) AS runs FROM durably_runs"
        eventually(f"{runs} runs", lambda: self.database.rows(count)[0]["runs"] >= runs)

    def _attempts(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for row in self.database.rows(
            "SELECT r.key, a.outcome FROM durably_attempts a "
            "JOIN durably_runs r ON r.id = a.run_id ORDER BY a.run_id, a.attempt"
        ):
            found[row["key"]].append(row["outcome"])
        return found

    def _check_effects(self, load: Load, attempts: dict[str, list[str]]) -> None:
        happened = self.world.effects() + Counter(
            row["key"] for row in self.database.rows("SELECT key FROM bookings")
        )
        calls = self.database.rows(
            "SELECT r.key, e.tool_name, e.idempotency_key, e.state FROM durably_effects e "
            "JOIN durably_runs r ON r.id = e.run_id"
        )
        assert {call["state"] for call in calls} <= {"done"}
        tools: dict[str, set[str]] = defaultdict(set)
        for call in calls:
            key, tool = call["key"], call["tool_name"]
            tools[key].add(tool)
            times = happened[call["idempotency_key"]]
            most = 1 if tool in self.at_most_once else len(attempts[key])
            assert 1 <= times <= most, f"{call['idempotency_key']}, {tool}: {times} times"
        assert all(tools[key] == shift.EVERY_TOOL for key in load.acknowledged)

    def _check_bill(self, load: Load, attempts: dict[str, list[str]], *, overlapping: bool) -> None:
        """What is saved was never asked for again; what was not may be lost with an attempt.

        Args:
            overlapping: an attempt that lost its run may have had its answer after the next one.
        """
        saved = {
            (row["key"], json.loads(row["body"])["provider_response_id"])
            for row in self.database.rows(
                "SELECT r.key, m.body FROM durably_messages m JOIN durably_runs r "
                "ON r.id = m.run_id WHERE m.kind = 'response'"
            )
        }
        paid: dict[str, list[str]] = defaultdict(list)
        last: dict[tuple[str, int], str] = {}
        for fact in self.world.records("paid"):
            paid[fact["run"]].append(fact["nonce"])
            last[(fact["run"], fact["response"])] = fact["nonce"]
        for key in load.acknowledged:
            in_vain = len(paid[key]) - len(shift.RESPONSES)
            assert 0 <= in_vain < len(attempts[key]), f"{key}: {in_vain} responses in vain"
            for number in range(0 if overlapping else len(shift.RESPONSES)):
                assert (key, last[(key, number)]) in saved, f"{key}: {number} was asked for again"

    def _check_watched(self, load: Load) -> None:
        for key, seen in load.watched.items():
            rows = self.database.rows(
                "SELECT e.id FROM durably_events e JOIN durably_runs r ON r.id = e.run_id "
                f"WHERE r.key = '{key}' ORDER BY e.id"
            )
            assert seen == [row["id"] for row in rows][: len(seen)], key
            assert seen, key

    def check_jobs(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Oban's own record comes to its end as well."""
        over = (
            "SELECT state FROM oban_jobs WHERE state NOT IN ('completed', 'discarded', 'cancelled')"
        )
        eventually("all jobs are over", lambda: not self.database.rows(over), seconds)


class Command:
    """``durably worker`` on a site."""

    def __init__(self, folder: Path, number: int, *options: str) -> None:
        self._log = folder / f"command-{number}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "durably",
                    "worker",
                    "--app",
                    "faults.deployed:make",
                    *options,
                ],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SITE": str(folder)},
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_to_say(self, text: str) -> None:
        eventually(text, lambda: text in self.log or self.process.poll() is not None)
        assert text in self.log, self.log

    def end(self) -> None:
        self.process.kill()  # Also one that is stopped.
        self.process.wait(DEADLINE_SECONDS)


class Load:
    """What the client has asked for, and has had answered.

    Attributes:
        acknowledged: the keys of runs that `enqueue` returned.
        finished: those whose result came.
        watched: the events that were seen of some, by id.
    """

    def __init__(self, app: Durably) -> None:
        self._app = app
        self._stopped = False
        self.acknowledged: set[str] = set()
        self.finished: set[str] = set()
        self.watched: dict[str, list[int]] = {}

    def stop(self) -> None:
        """Enqueue nothing more."""
        self._stopped = True

    async def recovery(self, what: str) -> None:
        """Wait until the next run has ended; says how long that takes once something is over."""
        began = time.monotonic()
        await self.progress(1)
        print(f"{what}: the next run ended {time.monotonic() - began:.1f} s later")

    async def progress(self, runs: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until so many more runs have ended: all is well, or well again."""
        goal = len(self.finished) + runs
        try:
            async with asyncio.timeout(seconds):
                while len(self.finished) < goal:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"no {runs} runs ended in {seconds:g} s") from None

    async def go_on(self, client: int) -> None:
        number = 0
        while not self._stopped:
            number += 1
            key = f"{client}-{number}"
            run = await self._enqueued(key)
            self.acknowledged.add(key)
            try:
                said = await run.result(timeout=PATIENCE_SECONDS)
            except TimeoutError:
                raise AssertionError(f"{key} has no end: {await self._told(run)}") from None
            assert said == "All is well."
            self.finished.add(key)

    async def watch_some(self) -> None:
        """Follow one run after another to its end."""
        number = 0
        while not self._stopped:
            number += 1
            key = f"watched-{number}"
            run = await self._enqueued(key)
            self.acknowledged.add(key)
            seen = self.watched[key] = []
            async for event in run.watch():
                seen.append(event.id)
            self.finished.add(key)

    async def decide(self, world: World) -> None:
        """A person, who looks whether what is asked about has happened."""
        while True:
            with suppress(LedgerUnavailable, TransitionRefused):
                for item in await self._app.inbox():
                    run = await self._app.get(item.run_key)
                    key = item.effect.idempotency_key
                    if world.effects()[key]:
                        answer = receipt(item.effect.tool_name, key)
                        await run.resolve(item.effect.call_id, done=answer)
                    else:
                        await run.resolve(item.effect.call_id, again=True)
            await asyncio.sleep(0.1)

    async def _told(self, run: Any) -> str:
        """What became of a run, in the order of time, and the state that its handle saw."""
        events = [event async for event in run.watch() if event] if run.state.final else []
        record = (await self._app.get(run.key)).record
        return f"its handle saw {run.record!r}; now {record!r}; {events!r}"

    async def _enqueued(self, key: str) -> Any:
        """Ask again, with the same key, until it is acknowledged."""
        while True:
            with suppress(LedgerUnavailable):
                return await self._app.enqueue("clerk", key, key=key)
            await asyncio.sleep(0.1)


async def _prepare(url: str) -> None:
    app = Durably(url)
    await app.migrate()
    await app.close()
    PostgresDatabase(url).execute(BOOKINGS)


def in_thread[**P, T](do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Any:
    """Break something while the client goes on."""
    return asyncio.to_thread(do, *args, **kwargs)
