"""Deltas: fenced, replaced by their message, withdrawn with their attempt, at no cost to others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from durably.errors import LeaseLost
from durably.ledger import attempts, deltas, reads, steps
from durably.ledger.postgres.database import PostgresDatabase
from durably.ledger.written import Step
from durably.lifecycle import AttemptOutcome, RunState
from durably.records import Event, RunRecord
from support.costs import step_of
from support.ledgers import LEASE_SECONDS, Ledger, PostgresBackend, message, stale
from support.races import paused, second


def piece(text: str, position: int = 1) -> str:
    return json.dumps({"message": position, "events": [text]})


async def say(ledger: Ledger, run: RunRecord, text: str, position: int = 1, last: int = 0) -> int:
    write = deltas.write, run.claim, position, piece(text, position), last
    return await ledger.write(*write)


async def events(ledger: Ledger, run: RunRecord) -> list[Event]:
    return await ledger.read(reads.list_events, run.id, 0, 1000)


async def said(ledger: Ledger, run: RunRecord) -> list[str]:
    found = [event for event in await events(ledger, run) if event.kind == "delta"]
    return [text for event in found for text in event.data["events"]]


async def test_message_replaces_its_deltas_and_they_come_no_more(ledger: Ledger) -> None:
    run = await ledger.executing()
    first = await say(ledger, run, "Hel")
    last = await say(ledger, run, "lo", last=first)
    assert await say(ledger, run, "lo", last=first) == last, "nobody heard of it: it comes twice"
    assert await said(ledger, run) == ["Hel", "lo"]

    step = Step(messages=(message(0), message(1)), streams=True)
    await ledger.write(steps.record_step, run.claim, step)
    assert await say(ledger, run, "late", last=last) == last, "written before, comes after"
    assert await said(ledger, run) == []
    after = await say(ledger, run, "the next", 3, last=last)
    assert after > last, "a cursor is never given twice"
    await ledger.write(steps.record_step, run.claim, step)  # Nobody heard of it either.
    assert await said(ledger, run) == ["the next"]


async def test_only_the_attempt_that_has_the_run_says_something(ledger: Ledger) -> None:
    run = await ledger.executing()
    with pytest.raises(LeaseLost):
        await ledger.write(deltas.write, stale(run), 1, piece("stale"), 0)
    with pytest.raises(LeaseLost):
        await ledger.write(deltas.ask_again, stale(run), 0)
    ended = await ledger.write(attempts.hand_back, run.claim, Step(streams=True))
    with pytest.raises(LeaseLost):
        await ledger.write(deltas.write, run.claim, 1, piece("late"), 0)
    assert await said(ledger, ended) == []


ENDS: dict[AttemptOutcome, tuple[Any, tuple[Any, ...]]] = {
    AttemptOutcome.FAILED: (attempts.fail, ("boom", "", 60.0)),
    AttemptOutcome.DISCARDED: (attempts.discard, ("no use", "")),
    AttemptOutcome.SUSPENDED: (attempts.suspend, ("change", {})),
    AttemptOutcome.HANDED_BACK: (attempts.hand_back, ()),
    AttemptOutcome.CANCELLED: (attempts.stop, ()),
    AttemptOutcome.COMPLETED: (attempts.complete, ('"done"',)),
    AttemptOutcome.LOST: (attempts.rescue, ()),
}


@pytest.mark.parametrize("outcome", ENDS)
async def test_attempt_that_ends_takes_back_what_is_half_said(
    ledger: Ledger, outcome: AttemptOutcome
) -> None:
    run = await ledger.executing()
    other = await ledger.executing("w2")
    last = await say(ledger, run, "a result", 4)
    await say(ledger, run, "half a mess", 5, last)
    await say(ledger, other, "mine")
    end, args = ENDS[outcome]
    if outcome is AttemptOutcome.LOST:
        ledger.clock.advance(LEASE_SECONDS + 1)
        await ledger.worker("w2")
        assert [rescued.id for rescued in await ledger.write(end)] == [run.id]
    else:
        await ledger.write(end, run.claim, *args, Step(streams=True))

    found = await events(ledger, run)
    kinds = [event.kind for event in found if event.id > last]
    if outcome is AttemptOutcome.COMPLETED:
        assert kinds == ["completed"], "the output is what was said"
    else:
        assert kinds[0] == "withdrawn" and "delta" not in kinds and len(kinds) == 2
        (withdrawn,) = (event for event in found if event.kind == "withdrawn")
        assert (withdrawn.data, withdrawn.attempt) == ({"message": 4}, run.attempt)
    assert await said(ledger, run) == []
    assert await said(ledger, other) == ["mine"]


async def test_model_that_is_asked_again_takes_back_its_own_words_alone(ledger: Ledger) -> None:
    run = await ledger.executing()
    before = await say(ledger, run, "a result", 2)
    await say(ledger, run, "half a mess", 3, before)
    await ledger.write(deltas.ask_again, run.claim, before)
    await ledger.write(deltas.ask_again, run.claim, before)  # Nobody heard of the first.
    assert await said(ledger, run) == ["a result"]
    taken_back = [e.data for e in await events(ledger, run) if e.kind == "withdrawn"]
    assert taken_back == [{"message": 3}]


async def test_run_that_does_not_stream_pays_nothing(ledger: Ledger) -> None:
    """Neither for a step nor for an end; and one that does pays one statement for a step."""
    from ledger.test_cost import Writes

    run = await ledger.executing()
    names = dict[bool, set[str]]()
    for number, streams in enumerate((False, True)):
        writes = Writes()
        step = step_of(number)
        step = Step(step.usage, step.messages, step.outcomes, None, step.events, streams=streams)
        await ledger.write(writes.counted, steps.record_step(run.claim, step))
        names[streams] = set(writes.names)
        assert writes.names["drop_deltas"] == streams
    assert names[True] - names[False] == {"drop_deltas"}
    writes = Writes()
    await ledger.write(writes.counted, attempts.fail(run.claim, "boom", "", 0.0, Step()))
    assert not {"first_delta", "drop_deltas"} & set(writes.names)
    assert (await ledger.get(run)).state is RunState.RETRYABLE


@pytest.mark.parametrize("first", ["the checkpoint", "the delta"])
async def test_delta_and_checkpoint_at_the_same_moment_leave_the_message_alone(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, first: str
) -> None:
    """On two connections, as when one was lost: whoever comes second sees what the first did."""
    run = await ledger.executing()
    step = Step(messages=(message(0), message(1)), streams=True)
    checkpoint = steps.record_step, run.claim, step
    delta = deltas.write, run.claim, 1, piece("late"), 0
    order = (checkpoint, delta) if first == "the checkpoint" else (delta, checkpoint)
    pause = await paused(ledger, *order[0])
    task = await second(other, pg, *order[1])
    await pause.end()
    await asyncio.gather(task)
    assert await said(ledger, run) == []
    assert len(await ledger.read(reads.list_messages, run.id)) == 2
