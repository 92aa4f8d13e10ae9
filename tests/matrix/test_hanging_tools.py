"""A tool that hangs costs its own attempt: ended by its time, by a cancel, or by a deploy."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from crash.grounds import Grounds
from crash.processes import Processes, eventually, is_alive
from crash.undisturbed import logs
from crash.world import World
from durably import LedgerUnavailable
from matrix import hanging_tools
from matrix.faulty_tools import NEIGHBOUR
from matrix.hanging_tools import OTHERS, TRANSACTIONAL, Hanging, expected
from matrix.record import proved
from matrix.workers import leave, until_nothing_is_open

pytestmark = pytest.mark.timeout(1800)

TIMEOUT_SECONDS = 20.0
"""Of an attempt: on a slow machine its tool has acted by then."""

LEASE_SECONDS = 300
"""On SQLite a transaction that hangs keeps everybody from writing: this is not about leases."""

OF_OTHERS = [Hanging(policy, in_thread) for policy in OTHERS for in_thread in (False, True)]

GROUPS = pytest.mark.parametrize(
    "tools",
    [
        pytest.param(OF_OTHERS, id="others"),
        # By themselves: on SQLite the one holds up all others.
        pytest.param([Hanging(TRANSACTIONAL, False)], id="async", marks=pytest.mark.longer),
        pytest.param([Hanging(TRANSACTIONAL, True)], id="thread", marks=pytest.mark.longer),
    ],
)


@pytest.fixture
def world(grounds: Grounds, tmp_path: Path) -> World:
    return grounds.world(tmp_path / "world")


@pytest.mark.longer
@GROUPS
def test_time_that_is_over_ends_the_attempt_and_the_policy_says_what_is_repeated(
    tools: list[Hanging], world: World, processes: Processes
) -> None:
    process = _start(world, processes, tools, TIMEOUT_SECONDS)
    until_nothing_is_open(world, process)
    found = Found(world)
    leave(process)
    wrong = [
        problem
        for tool in tools
        for problem in found.problems(
            tool, always=True, failures=expected(tool.policy, always=True).ended
        )
    ]
    assert not wrong, "\n".join(wrong)
    _prove("tool hangs until its time is over", tools, world)


@GROUPS
def test_cancel_ends_a_run_whose_tool_hangs_and_what_happened_stays_known(
    tools: list[Hanging], world: World, processes: Processes
) -> None:
    # Where nobody can write while the transaction hangs, its time has to end it before.
    locked = tools[0].policy == TRANSACTIONAL and world.database.dialect == "sqlite"
    process = _start(world, processes, tools, TIMEOUT_SECONDS if locked else None)
    _until_all_hang(world, tools)
    asyncio.run(_cancel(world, tools))
    if not locked:
        asyncio.run(_enqueue_neighbour(world, tools))
    until_nothing_is_open(world, process)
    found = Found(world)
    assert is_alive(process), logs(world.folder)
    leave(process)
    wrong = list[str]()
    for tool in tools:
        once = tool.policy.startswith("once")
        checks: dict[str, tuple[Any, Any]] = {
            "state": (found.run(tool)["state"], "cancelled"),
            "effect": (found.effect(tool), "in_doubt" if once else None),
            "times": (found.times(tool), 0 if tool.policy == TRANSACTIONAL else 1),
            "crashes": (found.run(tool)["crashes"], 0),
        }
        wrong += [
            f"{tool.key}: {what}: {is_} is not {be}"
            for what, (is_, be) in checks.items()
            if is_ != be
        ]
    assert not wrong, "\n".join(wrong)
    if not locked:
        assert found.states[NEIGHBOUR] == "completed", "another run of the worker went on"
    _prove("tool hangs while its run is cancelled", tools, world)


@GROUPS
def test_worker_told_to_leave_hands_back_runs_whose_tools_hang(
    tools: list[Hanging], world: World, processes: Processes
) -> None:
    process = _start(world, processes, tools, grace=0.5)
    _until_all_hang(world, tools)
    leave(process)
    left = Found(world)
    for tool in tools:
        assert left.run(tool)["state"] == "available", tool.key

    world.open_gate()
    process = processes.start(hanging_tools.worker, world.folder, tools)
    until_nothing_is_open(world, process)
    found = Found(world)
    leave(process)
    wrong = [p for tool in tools for p in found.problems(tool, always=False, failures=0)]
    assert not wrong, "\n".join(wrong)
    _prove("tool hangs while its worker is told to leave", tools, world)


# --- helpers


class Found:
    """What the runs left."""

    def __init__(self, world: World) -> None:
        rows = world.database.rows
        self._runs = {row["key"]: row for row in rows("SELECT * FROM durably_runs")}
        self._effects = {
            row["idempotency_key"]: row["state"] for row in rows("SELECT * FROM durably_effects")
        }
        booked = Counter(row["key"] for row in rows("SELECT key FROM bookings"))
        self._happened = world.effects() + booked
        self._paid = Counter((f["run"], f["response"]) for f in world.records("paid"))

    @property
    def states(self) -> dict[str, str]:
        """Of all runs, by key."""
        return {key: run["state"] for key, run in self._runs.items()}

    def run(self, tool: Hanging) -> dict[str, Any]:
        return self._runs[tool.key]

    def effect(self, tool: Hanging) -> str | None:
        """The state of the call that hung."""
        return self._effects.get(f"{tool.key}:3.0")

    def times(self, tool: Hanging) -> int:
        """How often it acted."""
        return self._happened[f"{tool.key}:3.0"]

    def problems(self, tool: Hanging, *, always: bool, failures: int) -> list[str]:
        """What is not as its policy says; empty if all is well."""
        wanted, run = expected(tool.policy, always=always), self.run(tool)
        last = 1 if wanted.state == "completed" else 0
        checks: dict[str, tuple[Any, Any]] = {
            "state": (run["state"], wanted.state),
            "effect": (self.effect(tool), wanted.effect),
            "times": (self.times(tool), wanted.times),
            "times of the call before": (self._happened[f"{tool.key}:1.0"], 1),
            "failures": (run["failures"], failures),
            "crashes": (run["crashes"], 0),
            "requests": ([self._paid[tool.key, number] for number in range(3)], [1, 1, last]),
        }
        return _different(tool, checks)


def _different(tool: Hanging, checks: dict[str, tuple[Any, Any]]) -> list[str]:
    return [
        f"{tool.key}: {what}: {is_} is not {be}" for what, (is_, be) in checks.items() if is_ != be
    ]


def _start(
    world: World,
    processes: Processes,
    tools: list[Hanging],
    timeout: float | None = None,
    **options: Any,
) -> BaseProcess:
    """Enqueue a run for each, and start a worker that has room for all."""
    app, agents = hanging_tools.app_for(world, tools)

    async def enqueue() -> None:
        async with app:
            for tool, agent in agents.items():
                await app.enqueue(agent, "Do it.", key=tool.key)

    asyncio.run(enqueue())
    queues = {"agents": len(tools) + 1}
    return processes.start(
        hanging_tools.worker,
        world.folder,
        tools,
        timeout,
        queues=queues,
        lease=LEASE_SECONDS,
        **options,
    )


def _until_all_hang(world: World, tools: list[Hanging]) -> None:
    keys = {tool.key for tool in tools}
    eventually("all hang", lambda: {fact["run"] for fact in world.records("hangs")} >= keys)


async def _cancel(world: World, tools: list[Hanging]) -> None:
    """As anybody would: once more while the file is locked."""
    app, _ = hanging_tools.app_for(world, tools)
    async with app:
        for tool in tools:
            run = await app.get(tool.key)
            while True:
                with suppress(LedgerUnavailable):
                    await run.cancel()
                    break


async def _enqueue_neighbour(world: World, tools: list[Hanging]) -> None:
    app, _ = hanging_tools.app_for(world, tools)
    async with app:
        await app.enqueue(NEIGHBOUR, "Do it.", key=NEIGHBOUR)


def _prove(fault: str, tools: list[Hanging], world: World) -> None:
    for tool in tools:
        proved(fault, moment="tool", policy=tool.policy, database=world.database.dialect)
