"""Tools that do wrong, in every way, under every policy: each ends its own run, and no other's."""

import asyncio
import os
import signal
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from crash.grounds import Grounds
from crash.processes import Processes, ended, eventually, is_alive
from crash.undisturbed import logs, sample
from crash.world import World
from matrix import faulty_tools
from matrix.faulty_tools import FAULTS, expected, key_of
from matrix.record import proved

pytestmark = pytest.mark.timeout(1800)

QUICK = [
    "a tool exits by sys.exit()",
    "a tool exits by sys.exit(), in a thread",
    "a tool raises CancelledError",
    "a tool raises what cannot be said",
    "a tool raises what is no Unicode",
    "a tool returns an object",
    "a tool returns NaN",
]
"""What `make test` has of them."""

OPEN = "('scheduled', 'available', 'executing', 'retryable')"


@pytest.fixture
def world(grounds: Grounds, tmp_path: Path) -> World:
    return grounds.world(tmp_path / "world")


# --- what a tool raises and returns


def test_tool_that_does_wrong_ends_its_own_run_as_its_policy_says(
    world: World, processes: Processes
) -> None:
    """All of them at once, in one worker: whatever one of them raises, the worker goes on."""
    faults = sample(QUICK, [name for name in FAULTS if name not in QUICK])
    app, agents = faulty_tools.app_for(world, faults)

    async def enqueue() -> None:
        async with app:
            for (fault, policy), agent in agents.items():
                await app.enqueue(agent, "Do it.", key=key_of(FAULTS[fault], policy))

    asyncio.run(enqueue())
    process = processes.start(faulty_tools.worker, world.folder, faults, lease=LEASE_SECONDS)
    _until_nothing_is_open(world, process)
    _leave(process)

    found = _Found(world)
    wrong = [
        f"{fault}, {policy}: {problem}"
        for fault, policy in agents
        for problem in found.problems(fault, policy)
    ]
    assert not wrong, "\n".join(wrong)
    for fault, policy in agents:
        proved(fault, moment="tool", policy=policy, database=world.database.dialect)


LEASE_SECONDS = 60
"""Text of 50 MB holds the interpreter's lock for seconds: this is about other things."""


class _Found:
    """What the runs left."""

    def __init__(self, world: World) -> None:
        rows = world.database.rows
        self._runs = {row["key"]: row for row in rows("SELECT * FROM durably_runs")}
        self._effects = {
            row["idempotency_key"]: row for row in rows("SELECT * FROM durably_effects")
        }
        self._outcomes = {
            row["run_id"]: row["outcome"]
            for row in rows("SELECT run_id, outcome FROM durably_attempts ORDER BY attempt")
        }
        self._lost = Counter(
            row["run_id"]
            for row in rows("SELECT run_id, outcome FROM durably_attempts")
            if row["outcome"] in ("lost", "handed_back", None)
        )
        booked = Counter(row["key"] for row in rows("SELECT key FROM bookings"))
        self._happened = world.effects() + booked
        self._paid = Counter((f["run"], f["response"]) for f in world.records("paid"))

    def problems(self, fault_name: str, policy: str) -> list[str]:
        """What is not as it should be; empty if all is well."""
        fault = FAULTS[fault_name]
        key, wanted = key_of(fault, policy), expected(fault, policy)
        run = self._runs[key]
        effect = self._effects.get(f"{key}:3.0")
        checks: dict[str, tuple[Any, Any]] = {
            "state": (run["state"], wanted.state),
            "failures": (
                run["failures"],
                # A run that is discarded for a permanent error counts it as well.
                wanted.failures,
            ),
            "crashes": (run["crashes"], 0),
            "attempts lost": (self._lost[run["id"]], 0),
            "effect": (effect and effect["state"], wanted.effect),
            "times": (self._happened[f"{key}:3.0"], wanted.times),
            "times of the call before": (self._happened[f"{key}:1.0"], 1),
            "requests": (
                [self._paid[key, number] for number in range(3)],
                [int(number < wanted.requests) for number in range(3)],
            ),
        }
        said = [run["error"]] if wanted.state == "discarded" else []
        if wanted.effect == "in_doubt":
            said.append(f"{_type_of(fault.says)}{effect['error']}" if effect else None)
        problems = [f"{what}: {is_} is not {be}" for what, (is_, be) in checks.items() if is_ != be]
        for text in said:
            if not (text or "").startswith(fault.says) or len(text) > 11_000:
                problems.append(f"it says {str(text)[:200]!r}")
        return problems


def _type_of(says: str) -> str:
    """A call whose result could not be stored says so without the error's name."""
    name = "ResultNotSerializable: "
    return name if says.startswith(name) else ""


# --- helpers


def _until_nothing_is_open(world: World, process: BaseProcess) -> None:
    sql = f"SELECT key FROM durably_runs WHERE state IN {OPEN}"

    def look() -> bool:
        done = not world.database.rows(sql)
        assert is_alive(process), logs(world.folder)
        time.sleep(0.1)
        return done

    eventually("every run has ended or waits", look, seconds=900)


def _leave(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    assert ended(process) == 0
