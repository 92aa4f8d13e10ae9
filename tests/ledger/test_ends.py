"""Ends of runs reach everybody who must know of them, whoever else is about at that moment."""

from __future__ import annotations

from durably.ledger import attempts, children, ends, reads, runs
from durably.ledger.written import Step, ToolCall
from durably.lifecycle import RunState
from durably.records import CallPosition, RunRecord
from support.ledgers import Ledger, new_run


def waiting_for_child(parent: RunRecord, step: str = "run child") -> tuple[object, ...]:
    call = ToolCall(CallPosition(1, 0, step), "work", "c", "{}", "read", None, f"k:1.0/{step}")
    return children.begin, parent.claim, call, new_run("child", parent_id=parent.id)


async def suspended(ledger: Ledger, parent: RunRecord, step: str) -> RunRecord:
    on = {"waits": [{"call_id": f"1.0/{step}", "for": "child"}]}
    return await ledger.write(attempts.suspend, parent.claim, "waits", on, Step())


async def states(ledger: Ledger, run: RunRecord) -> list[str]:
    return [str(effect.state) for effect in await ledger.read(reads.list_effects, run.id)]


async def claimed_child(ledger: Ledger) -> RunRecord:
    return await ledger.claim(await ledger.read(reads.get_run, "child"), "w2")


async def test_end_of_a_child_settles_every_wait_for_it(ledger: Ledger) -> None:
    """Two calls of one parent name the same child; the attempt comes to the second one only."""
    parent = await ledger.executing()
    for step in ("run child", "run child #2"):
        await ledger.write(*waiting_for_child(parent, step))
    child = await claimed_child(ledger)
    await ledger.write(attempts.complete, child.claim, '"found"', Step())
    await ledger.write(children.tell_parent, child.id)
    assert await states(ledger, parent) == ["done", "done"]
    parent = await suspended(ledger, parent, "run child #2")
    assert parent.state is RunState.AVAILABLE


async def test_child_that_fails_again_wakes_the_wait_that_began_meanwhile(ledger: Ledger) -> None:
    parent = await ledger.executing()
    await ledger.write(*waiting_for_child(parent))
    child = await claimed_child(ledger)
    await ledger.write(attempts.discard, child.claim, "no", "", Step())
    await ledger.write(children.tell_parent, child.id)
    await ledger.write(runs.revive, "child", "ann")
    await ledger.write(*waiting_for_child(parent, "run child #2"))
    parent = await suspended(ledger, parent, "run child #2")
    assert parent.state is RunState.SUSPENDED
    child = await claimed_child(ledger)
    await ledger.write(attempts.discard, child.claim, "no", "", Step())
    await ledger.write(children.tell_parent, child.id)
    assert await states(ledger, parent) == ["failed", "failed"]
    assert (await ledger.get(parent)).state is RunState.AVAILABLE


async def test_end_that_was_told_slowly_does_not_hide_the_next_one(ledger: Ledger) -> None:
    """Revived, and ended again, while its first end was still being told."""
    parent = await ledger.executing()
    await ledger.write(*waiting_for_child(parent))
    first = await ledger.write(attempts.stop, parent.claim, Step())
    await ledger.write(runs.revive, parent.key, "ann")
    ledger.clock.advance(0.001)
    second = await ledger.write(runs.cancel, parent.key, "ann")
    await ledger.write(ends.told, first)
    assert [run.key for run in await ledger.read(ends.list_untold)] == [parent.key]
    await ledger.write(ends.told, second)
    assert await ledger.read(ends.list_untold) == []
