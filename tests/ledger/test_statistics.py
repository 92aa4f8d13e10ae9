"""Statistics are what a slow count of the same ledger gives; the inbox comes in pages."""

from __future__ import annotations

import itertools
import random
import statistics as slow
from datetime import timedelta
from typing import Any

import pytest

from durably.ledger import attempts, reads, runs, statistics, workers
from durably.ledger.operations import Operation
from durably.ledger.reads import InboxPlace
from durably.ledger.written import Ask, CallOutcome, NewMessage, Step
from durably.lifecycle import EffectState, RunState
from durably.records import Ended, RunRecord, Spread, Statistics
from support.ledgers import Ledger, new_run, tool_call

ENDS = ("complete", "fail", "discard", "stop", "crash", "suspend", "hand_back", "nothing")
USAGE = '{{"input_tokens": {}, "output_tokens": 5, "from_children": {{"tokens": 3, "nanousd": 7}}}}'


async def live(ledger: Ledger, chance: random.Random, count: int) -> list[RunRecord]:
    """Runs that end in every way, by real transitions, while time goes by."""
    for number in range(count):
        key = f"r{number}"
        run = await ledger.insert(key, agent=chance.choice("ab"), queue=chance.choice("xy"))
        ledger.clock.advance(chance.uniform(0, 45))
        for _ in range(chance.randrange(4)):
            if run.state not in (RunState.AVAILABLE, RunState.RETRYABLE):
                break
            worker = await ledger.worker(f"w{next(NAMES)}", 10.0)
            run = await ledger.claim(run, worker)
            ledger.clock.advance(chance.uniform(0, 30))
            await ledger.worker(worker, 10.0)
            run = await ended(ledger, run, chance)
            ledger.clock.advance(chance.uniform(0, 20))
    return [await ledger.read(reads.get_run, f"r{number}") for number in range(count)]


NAMES = itertools.count()


async def ended(ledger: Ledger, run: RunRecord, chance: random.Random) -> RunRecord:
    """The run at the end of its attempt, or still in it."""
    step = Step(
        usage=USAGE.format(chance.randrange(1000)),
        cost_nanousd=chance.randrange(7, 10**9),
        messages=(NewMessage(run.attempt, "response", "{}"),),
        model=chance.choice([None, "one", "two"]),
    )
    write, claim = ledger.write, run.claim
    match chance.choice(ENDS):
        case "complete":
            return await write(attempts.complete, claim, '"ok"', step)
        case "fail":
            return await write(attempts.fail, claim, "boom", "", 0.0, step)
        case "discard":
            return await write(attempts.discard, claim, "no", "", step)
        case "stop":
            return await write(attempts.stop, claim, step)
        case "suspend":
            return await write(attempts.suspend, claim, "change", {}, step)
        case "hand_back":
            return await write(attempts.hand_back, claim, step)
        case "crash":
            ledger.clock.advance(11)
            await write(attempts.rescue)
            return await ledger.get(run)
        case _:
            return run


async def recount(ledger: Ledger, found: list[RunRecord], by: str | None) -> dict[Any, Ended]:
    """What ended in the last forty minutes, by group, from every run and all its attempts."""
    since = ledger.clock.now - timedelta(seconds=2400)
    groups: dict[Any, list[RunRecord]] = {}
    for run in found:
        if run.finished_at is not None and since < run.finished_at <= ledger.clock.now:
            groups.setdefault(None if by is None else getattr(run, by), []).append(run)
    return {name: await counted(ledger, ended) for name, ended in groups.items()}


async def counted(ledger: Ledger, ended: list[RunRecord]) -> Ended:
    waits: list[float] = []
    executions: list[float] = []
    for run in ended:
        attempts = await ledger.read(reads.list_attempts, run.id)
        if attempts:
            waits.append((attempts[0].started_at - run.inserted_at).total_seconds())
            over = [a for a in attempts if a.ended_at is not None]
            executions.append(sum((a.ended_at - a.started_at).total_seconds() for a in over))
    states = [run.state for run in ended]
    spent = [run.usage for run in ended if run.usage]
    return Ended(
        completed=states.count(RunState.COMPLETED),
        discarded=states.count(RunState.DISCARDED),
        cancelled=states.count(RunState.CANCELLED),
        failures=sum(run.failures for run in ended),
        crashes=sum(run.crashes for run in ended),
        # Without what its children spent.
        tokens=sum(usage["input_tokens"] + 5 - 3 for usage in spent),
        cost_nanousd=sum(run.cost_nanousd - 7 for run in ended if run.usage),
        wait=spread(waits),
        execution=spread(executions),
    )


def spread(seconds: list[float]) -> Spread:
    if len(seconds) < 2:
        return Spread(len(seconds), *(seconds * 2))
    cuts = slow.quantiles(seconds, n=100, method="inclusive")
    return Spread(len(seconds), cuts[49], cuts[94])


def near(found: Ended, expected: Ended) -> bool:
    """Durations are kept to the millisecond, those of several attempts each."""
    for name in ("wait", "execution"):
        a, b = getattr(found, name), getattr(expected, name)
        pairs = ((a.median, b.median), (a.p95, b.p95))
        if a.count != b.count or not all(
            x == y or abs(x - y) < 0.005 for x, y in pairs if None not in (x, y) or x != y
        ):
            return False
    plain = ("completed", "discarded", "cancelled", "failures", "crashes", "tokens", "cost_nanousd")
    return all(getattr(found, name) == getattr(expected, name) for name in plain)


async def test_statistics_are_what_a_slow_count_gives(ledger: Ledger) -> None:
    chance = random.Random(5)
    found = await live(ledger, chance, 120)
    assert {run.state for run in found if run.finished_at} == {
        RunState.COMPLETED,
        RunState.DISCARDED,
        RunState.CANCELLED,
    }
    for by in (None, "agent", "queue", "model"):
        asked = await ledger.read(statistics.look, 2400.0, 7, by, None, None, None)
        expected = await recount(ledger, found, by)
        (total,) = (await recount(ledger, found, None)).values()
        assert near(asked.total.total, total)
        assert asked.total.total.runs > 10, "it is about something"
        if by is not None:
            assert {g.name for g in asked.groups} == expected.keys()
            assert all(near(g.total, expected[g.name]) for g in asked.groups)
        for group in asked.groups:
            of_group = [run for run in found if getattr(run, str(by)) == group.name]
            assert [b.runs for b in group.buckets] == bucketed(asked, of_group)
            assert sum(b.tokens for b in group.buckets) == group.total.tokens
        assert [b.runs for b in asked.total.buckets] == bucketed(asked, found)
    only = await ledger.read(statistics.look, 2400.0, 7, None, "a", "x", None)
    both = [r for r in found if (r.agent, r.queue) == ("a", "x")]
    assert near(only.total.total, (await recount(ledger, both, None)).get(None, Ended()))
    states = {state: [run.state for run in found].count(state) for state in RunState}
    assert asked.states == states


def bucketed(asked: Statistics, found: list[RunRecord]) -> list[int]:
    """How many of these runs ended in each bucket."""
    counts = [0] * len(asked.total.buckets)
    for run in found:
        for bucket in range(len(counts)):
            begins, ends = asked.start_of(bucket), asked.start_of(bucket + 1)
            counts[bucket] += run.finished_at is not None and begins < run.finished_at <= ends
    return counts


async def test_of_very_many_runs_some_are_looked_at_for_percentiles(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "EXACT_TO", 100)
    waited = list(range(1000))
    random.Random(1).shuffle(waited)

    def fill() -> Operation[None]:
        yield from workers.register("w", "w", 1, {}, 1e6)
        for number, seconds in enumerate(waited):
            run, _ = yield from runs.insert(new_run(f"f{number}", delay_seconds=-float(seconds)))
            claimed = yield from attempts.claim_one("w", run.id)
            assert claimed is not None
            yield from attempts.complete(claimed.claim, '"ok"', Step())

    await ledger.write(fill)
    asked = await ledger.read(statistics.look, 60.0, 3, None, None, None, None)
    ended = asked.total.total
    assert (asked.sampled, ended.completed, ended.wait.count) == (10, 1000, 1000)
    assert ended.wait.median == pytest.approx(500, abs=170)
    assert ended.wait.p95 == pytest.approx(950, abs=60)


async def test_inbox_comes_in_pages_that_leave_nothing_out(ledger: Ledger) -> None:
    for number in range(7):
        run = await ledger.claim(await ledger.insert(f"r{number}", tags=f'["t{number % 2}"]'))
        if number in (2, 5):
            on = {"scope": "run", "name": run.key, "what": "requests", "limit": 1, "spent": 1}
            await ledger.write(attempts.suspend, run.claim, "budget", on, Step())
        else:
            calls = [tool_call(1, n) for n in range(2)]
            step = Step(
                outcomes=tuple(
                    CallOutcome(c, EffectState.AWAITING, asked=True, ask=Ask("approval"))
                    for c in calls
                )
            )
            await ledger.write(attempts.suspend, run.claim, "effects", {"effects": ["1.0"]}, step)
        if number % 3 == 0:
            ledger.clock.advance(1)  # Others began to wait at the same moment.
    whole = await ledger.read(reads.list_inbox)
    assert len(whole) == 12
    assert [item.since for item in whole] == sorted(item.since for item in whole)
    for size in (1, 3, 5):
        paged, after = [], None
        while page := await ledger.read(reads.list_inbox, None, None, None, None, after, size):
            assert len(page) <= size
            paged += page
            after = InboxPlace.after(page[-1].cursor)
        assert paged == whole
    tagged = await ledger.read(reads.list_inbox, None, None, "t1", None, None, 100)
    assert tagged == [item for item in whole if item.tags == ["t1"]]
    counts = (await ledger.read(statistics.look, 60.0, 1, None, None, None, None)).waiting
    assert counts == {"approval": 10, "budget": 2}
