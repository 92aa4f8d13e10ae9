"""Tools that do wrong, in every way, under every policy: each ends its own run, and no other's."""

import asyncio
import resource
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from crash import children
from crash.grounds import Grounds
from crash.processes import Processes, eventually, is_alive
from crash.undisturbed import sample
from crash.world import World
from matrix import faulty_tools
from matrix.faulty_tools import FAULTS, MAX_ATTEMPTS, expected, fault_named, key_of
from matrix.record import proved
from matrix.workers import OPEN_RUNS, leave, until_nothing_is_open

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


@pytest.fixture
def world(grounds: Grounds, tmp_path: Path) -> World:
    return grounds.world(tmp_path / "world")


# --- what a tool raises and returns


def test_tool_that_does_wrong_ends_its_own_run_as_its_policy_says(
    world: World, processes: Processes
) -> None:
    """All of them at once, in one worker: whatever one of them raises, the worker goes on."""
    faults = sample(QUICK, [name for name in FAULTS if name not in QUICK])
    _carry_out(world, processes, faults)


@pytest.mark.longer
def test_tool_that_runs_out_of_memory_ends_its_own_run(world: World, processes: Processes) -> None:
    """What it had taken is free again when its failure is written down."""
    faults = [fault.name for fault in faulty_tools.OUT_OF_MEMORY]
    _carry_out(world, processes, faults, more_megabytes=700, queues={"agents": 1})


def _carry_out(world: World, processes: Processes, faults: list[str], **options: Any) -> None:
    """Have one worker execute a run for each fault and policy, and check each."""
    app, agents = faulty_tools.app_for(world, faults)

    async def enqueue() -> None:
        async with app:
            for (fault, policy), agent in agents.items():
                await app.enqueue(agent, "Do it.", key=key_of(fault_named(fault), policy))

    asyncio.run(enqueue())
    process = processes.start(
        faulty_tools.worker, world.folder, faults, lease=LEASE_SECONDS, **options
    )
    until_nothing_is_open(world, process)
    leave(process)

    found = _Found(world)
    wrong = [
        f"{fault}, {policy}: {problem}"
        for fault, policy in agents
        for problem in found.problems(fault, policy)
    ]
    assert not wrong, "\n".join(wrong)
    for fault, policy in agents:
        proved(fault, moment="tool", policy=policy, database=world.database.dialect)


@pytest.mark.longer
@pytest.mark.parametrize("policy", ["READ", "once, ask"])
@pytest.mark.parametrize("fault", [fault.name for fault in faulty_tools.FATAL])
def test_tool_that_kills_its_worker_each_time_is_not_tried_for_ever(
    fault: str, policy: str, world: World, processes: Processes
) -> None:
    """Another run of the worker finishes meanwhile; what was done before is not done again."""
    app, agents = faulty_tools.app_for(world, [fault])
    key = key_of(fault_named(fault), policy)

    async def enqueue() -> None:
        async with app:
            await app.enqueue(agents[fault, policy], "Do it.", key=key)
            await app.enqueue(faulty_tools.NEIGHBOUR, "Do it.", key=faulty_tools.NEIGHBOUR)

    asyncio.run(enqueue())
    deaths = 0
    while world.database.rows(OPEN_RUNS):
        process = processes.start(faulty_tools.worker, world.folder, [fault])
        if _dies_before_the_end(world, process):
            deaths += 1
            children.let_leases_end(world)
        else:
            leave(process)
    runs = {row["key"]: row for row in world.database.rows("SELECT * FROM durably_runs")}
    run, neighbour = runs[key], runs[faulty_tools.NEIGHBOUR]
    effects = {
        row["idempotency_key"]: row["state"]
        for row in world.database.rows("SELECT * FROM durably_effects")
    }
    assert (neighbour["state"], neighbour["crashes"]) == ("completed", 0)
    assert world.effects()[f"{key}:1.0"] == 1
    if policy == "READ":
        assert (run["state"], run["crashes"], run["failures"]) == ("discarded", MAX_ATTEMPTS, 0)
        assert f"died in {MAX_ATTEMPTS} attempts" in run["error"]
        assert deaths == world.effects()[f"{key}:3.0"] == MAX_ATTEMPTS
    else:
        assert (run["state"], run["crashes"], run["failures"]) == ("suspended", 1, 0)
        assert effects[f"{key}:3.0"] == "in_doubt"
        assert deaths == world.effects()[f"{key}:3.0"] == 1
    proved(fault, moment="tool", policy=policy, database=world.database.dialect, times=deaths)


RESIDENT_BYTES = 500 << 20
"""A worker that takes more is killed, as the system kills one."""


def _dies_before_the_end(world: World, process: BaseProcess) -> bool:
    sql = OPEN_RUNS

    def look() -> str | None:
        if not is_alive(process):
            return "dead"
        statm = Path(f"/proc/{process.pid}/statm").read_text().split()
        if statm and int(statm[1]) * resource.getpagesize() > RESIDENT_BYTES:
            process.kill()
        time.sleep(0.05)
        return None if world.database.rows(sql) else "alive"

    return eventually("the worker dies, or every run has ended or waits", look) == "dead"


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
        fault = fault_named(fault_name)
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
