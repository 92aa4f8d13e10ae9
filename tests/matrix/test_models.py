"""A provider that fails, at each moment of a run: it costs attempts, and nothing that was done."""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from crash.databases import instant
from crash.grounds import Grounds
from crash.processes import Processes, eventually
from crash.undisturbed import sample
from crash.world import World
from matrix import faulty_models
from matrix.faulty_models import MAX_ATTEMPTS
from matrix.provider import RETRY_AFTER_SECONDS, Provider
from matrix.record import proved
from matrix.workers import leave, until_nothing_is_open

pytestmark = pytest.mark.timeout(1800)

MOMENTS = {0: "the first request", 1: "a request in the middle", 2: "the last request"}

FAULTS = {
    "429": "model answers 429",
    "500": "model answers 500",
    "no JSON": "model answers what is no JSON",
    "a page": "model answers with a page",
    "no choices": "model answers with an error and 200",
    "nonsense": "model answers nonsense",
    "reset": "model's connection is reset",
    "cut off": "model's answer is cut off",
    "broken stream": "model's stream breaks in the middle",
}
"""What fails the attempt, once; as the table of the matrix has it."""

ANSWERS = {
    "bad args": "model gives arguments that do not validate",
    "args that are no JSON": "model gives arguments that are no JSON",
    "unknown tool": "model calls a tool that is not there",
    "empty": "model answers nothing at all",
}
"""What the model is told to say again, within the attempt."""

HANGS = {"hangs": "model hangs"}

QUICK = ["429@1", "500@2", "nonsense@0", "reset@1", "broken stream@2", "unknown tool@1", "empty@2"]
"""What `make test` has of them."""

ALL = [f"{fault}@{number}" for fault in (FAULTS | ANSWERS | HANGS) for number in MOMENTS]


@pytest.fixture
def world(grounds: Grounds, tmp_path: Path) -> World:
    return grounds.world(tmp_path / "world")


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider().serving() as provider:
        yield provider


def test_what_the_model_failed_at_is_asked_again_and_nothing_else(
    world: World, processes: Processes, provider: Provider
) -> None:
    """All at once in one worker; each run fails at its own request, once."""
    names = sample(QUICK, [name for name in ALL if name not in QUICK])
    process = _start(world, processes, provider.url, names)
    until_nothing_is_open(world, process)
    leave(process)

    found, wrong = Found(world, provider), list[str]()
    for name in names:
        fault, number = name.split("@")
        # On a slow machine the time of an attempt may be over more than once, or too early.
        timed = fault in HANGS
        wrong += found.problems(
            name,
            state="completed",
            failures=None if timed else int(fault in FAULTS),
            asked=None if timed else [1 + (n == int(number)) for n in MOMENTS],
        )
    assert not wrong, "\n".join(wrong)
    _check_retry_after(found, names)
    for name in names:
        _prove(name, world)


def test_model_that_fails_each_time_discards_the_run_which_can_be_revived(
    world: World, processes: Processes, provider: Provider
) -> None:
    faults = sample(["500", "401"], ["429", "nonsense", "reset", "cut off", "empty"])
    names = [f"{fault}@{number}!" for fault in faults for number in MOMENTS]
    process = _start(world, processes, provider.url, names)
    until_nothing_is_open(world, process)
    discarded = Found(world, provider)
    provider.heal()
    asyncio.run(_revive(world, provider.url, names))
    until_nothing_is_open(world, process)
    leave(process)

    completed, wrong = Found(world, provider), list[str]()
    for name in names:
        fault, _, where = name.partition("@")
        failures = 1 if fault == "401" else MAX_ATTEMPTS
        number = int(where.rstrip("!"))
        before = discarded.run(name)
        if (before["state"], before["failures"]) != ("discarded", failures) or not before["error"]:
            wrong.append(f"{name}: {before['state']}, {before['failures']}, {before['error']}")
        if fault in ("500", "401", "429") and f"as you wish: {fault}" not in before["error"]:
            wrong.append(f"{name} says {before['error']!r}")
        asked = None
        if fault not in ANSWERS:
            asked = [1 + failures * (n == number) for n in MOMENTS]
        wrong += completed.problems(name, state="completed", failures=0, asked=asked)
    assert not wrong, "\n".join(wrong)
    for name in names:
        _prove(name, world)


def test_run_whose_provider_is_not_there_is_discarded_and_revived(
    world: World, processes: Processes
) -> None:
    """Connections are refused, until there is a provider after all."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # It does not listen.
        port = nobody.getsockname()[1]
        url, names = f"http://127.0.0.1:{port}/v1", ["refused@-1"]
        process = _start(world, processes, url, names)
        until_nothing_is_open(world, process)
        (run,) = world.database.rows("SELECT * FROM durably_runs")
    assert (run["state"], run["failures"]) == ("discarded", MAX_ATTEMPTS)
    assert "Connection error" in run["error"]
    with Provider(port).serving() as provider:
        asyncio.run(_revive(world, url, names))
        until_nothing_is_open(world, process)
        found = Found(world, provider)
    leave(process)
    assert not found.problems(names[0], state="completed", failures=0, asked=[1, 1, 1])
    proved(
        "model's connection is refused",
        moment=MOMENTS[0],
        policy="once, ask",
        database=world.database.dialect,
    )


def test_worker_whose_models_hang_is_healthy_cancels_and_leaves(
    world: World, processes: Processes, provider: Provider
) -> None:
    names = [f"hangs@{number}!" for number in MOMENTS]
    process = _start(world, processes, provider.url, names, lease=3, grace=0.5)
    hanging = [(name, number) for number, name in enumerate(names)]
    eventually("all hang", lambda: all(provider.asked[place] for place in hanging))

    beat = _heartbeat(world)
    eventually("two heartbeats", lambda: _beats_after(world, beat) >= 2)
    asyncio.run(_cancel(world, provider.url, names[0]))
    eventually("cancelled", lambda: Found(world, provider).run(names[0])["state"] == "cancelled")
    leave(process)
    left = Found(world, provider)
    for name in names[1:]:
        run = left.run(name)
        assert (run["state"], run["failures"], run["crashes"]) == ("available", 0, 0)

    provider.heal()
    process = processes.start(faulty_models.worker, world.folder, provider.url, names)
    until_nothing_is_open(world, process)
    leave(process)
    found = Found(world, provider)
    for name, number in hanging[1:]:
        asked = [1 + (n == number) for n in MOMENTS]
        assert not found.problems(name, state="completed", failures=0, asked=asked)
        _prove(name, world)
    assert found.happened(names[0]) == {}


# --- helpers


class Found:
    """What the runs left, and what the provider was asked."""

    def __init__(self, world: World, provider: Provider) -> None:
        rows = world.database.rows
        self._runs = {row["key"]: row for row in rows("SELECT * FROM durably_runs")}
        self.attempts = rows("SELECT * FROM durably_attempts ORDER BY run_id, attempt")
        self._messages = rows("SELECT * FROM durably_messages ORDER BY run_id, seq")
        self._events = Counter(
            (row["run_id"], row["kind"]) for row in rows("SELECT run_id, kind FROM durably_events")
        )
        self._effects = world.records("effect")
        self._provider = provider

    def run(self, name: str) -> dict[str, Any]:
        return self._runs[name]

    def happened(self, name: str) -> Counter[str]:
        """How often each tool had its effect."""
        return Counter(
            fact["tool"] for fact in self._effects if fact["key"].rpartition(":")[0] == name
        )

    def problems(
        self, name: str, *, state: str, failures: int | None, asked: list[int] | None
    ) -> list[str]:
        """What is not as it should be, of a run that came to its end."""
        run = self._runs[name]
        bodies = [m["body"] for m in self._messages if m["run_id"] == run["id"]]
        broken = name.startswith("broken stream")
        checks: dict[str, tuple[Any, Any]] = {
            "state": (run["state"], state),
            "crashes": (run["crashes"], 0),
            "output": (run["output"], '"All is well."'),
            "effects": (self.happened(name), {"charge": 1, "mail": 1}),
            "half messages kept": (sum("Half a message" in body for body in bodies), 0),
            "half messages taken back": (self._events[run["id"], "withdrawn"], int(broken)),
            "pieces left": (self._events[run["id"], "delta"], 0),
        }
        if failures is not None:
            checks["failures"] = (run["failures"], failures)
        if asked is not None:
            checks["requests"] = ([self._provider.asked[name, n] for n in MOMENTS], asked)
        return [
            f"{name}: {what}: {is_} is not {be}" for what, (is_, be) in checks.items() if is_ != be
        ]


def _check_retry_after(found: Found, names: list[str]) -> None:
    """The retry was due when the provider said, by the ledger's own times."""
    for name in names:
        if name.startswith("429"):
            run = found.run(name)
            first = next(a for a in found.attempts if a["run_id"] == run["id"])
            wait = instant(run["scheduled_at"]) - instant(first["ended_at"])
            assert abs(wait.total_seconds() - RETRY_AFTER_SECONDS) < 0.5, wait


def _prove(name: str, world: World) -> None:
    fault, _, where = name.partition("@")
    known = FAULTS | ANSWERS | HANGS | {"401": "model answers 401"}
    moment = MOMENTS[int(where.rstrip("!"))] + (", each time" if where.endswith("!") else "")
    proved(known[fault], moment=moment, policy="once, ask", database=world.database.dialect)


def _start(
    world: World, processes: Processes, url: str, names: list[str], **options: Any
) -> BaseProcess:
    """Enqueue a run for each name, and start a worker."""
    app, agents = faulty_models.app_for(world, url, names)

    async def enqueue() -> None:
        async with app:
            for name, agent in agents.items():
                await app.enqueue(agent, "Charge, and mail.", key=name)

    asyncio.run(enqueue())
    return processes.start(faulty_models.worker, world.folder, url, names, **options)


async def _revive(world: World, url: str, names: list[str]) -> None:
    app, _ = faulty_models.app_for(world, url, names)
    async with app:
        for name in names:
            await (await app.get(name)).retry()


async def _cancel(world: World, url: str, name: str) -> None:
    app, _ = faulty_models.app_for(world, url, [name])
    async with app:
        await (await app.get(name)).cancel()


def _heartbeat(world: World) -> Any:
    (worker,) = world.database.rows("SELECT heartbeat_at FROM durably_workers")
    return worker["heartbeat_at"]


_seen: dict[str, set[Any]] = {}


def _beats_after(world: World, beat: Any) -> int:
    seen = _seen.setdefault(world.url, set())
    seen.add(_heartbeat(world))
    return len(seen - {beat})
