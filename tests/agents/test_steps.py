"""Steps inside a tool: each recorded by itself, under its own policy, and never done again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

import durably
from durably import (
    Durably,
    DurablyError,
    EffectState,
    NotDone,
    OutcomeUnknown,
    RunState,
    StepFailed,
    TransitionRefused,
    effects,
)
from support.office import Office, step_states


class Crash(Exception):
    """What a tool raises where a process would die."""


async def test_finished_step_is_not_done_again(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        a = await durably.step("first", do, "first")
        b = await durably.step("second", do, "second")
        return f"{a} {b}"

    def do(what: str) -> str:
        log.append(what)
        if log.count("second") == 1 and what == "second":
            raise NotDone("not yet")
        return what.upper()

    office = Office(app, work)
    run = await office.run()
    await office.go_on(run)
    assert log == ["first", "second", "second"]
    assert office.answers == ["FIRST SECOND"]
    assert await step_states(run) == {"1.0/first": "done", "1.0/second": "done"}


async def test_step_returns_the_same_now_and_later(app: Durably, log: list[str]) -> None:
    """A tool must not meet another type when it runs again."""

    class Receipt(BaseModel):
        number: int

    got: list[Any] = []

    async def work() -> str:
        got.append(await durably.step("pay", Receipt, number=7))
        if len(got) == 1:
            raise NotDone("once more")
        return "ok"

    office = Office(app, work)
    await office.go_on(await office.run())
    assert got == [{"number": 7}, {"number": 7}]


@pytest.mark.parametrize("sync", [True, False])
async def test_step_knows_its_own_idempotency_key(app: Durably, log: list[str], sync: bool) -> None:
    def look() -> str:
        return durably.current_call().idempotency_key

    async def look_async() -> str:
        return look()

    async def work() -> list[str]:
        inner = await durably.step("pay", look if sync else look_async)
        return [inner, durably.current_call().idempotency_key]

    office = Office(app, work)
    await office.run()
    assert office.answers == [["r1:1.0/pay", "r1:1.0"]]


async def test_step_in_doubt_is_asked_about_and_the_tool_goes_on(
    app: Durably, log: list[str]
) -> None:
    async def work() -> str:
        await durably.step("look", note, "look", effect=effects.READ)
        receipt = await durably.step("charge", charge)
        return f"charged: {receipt}"

    def note(what: str) -> None:
        log.append(what)

    def charge() -> str:
        log.append("charge")
        raise Crash("the answer got lost")

    office = Office(app, work)
    run = await office.suspended()
    (item,) = await app.inbox(kind="doubt")
    assert item.effect is not None
    assert (item.effect.call_id, item.effect.error) == ("1.0/charge", "Crash: the answer got lost")
    await run.resolve("1.0/charge", done="receipt 9", by="ann")
    await office.go_on(run)
    assert run.state is RunState.COMPLETED
    assert office.answers == ["charged: receipt 9"]
    assert log == ["look", "charge"]


async def test_step_in_doubt_asks_its_reconcile_function(app: Durably, log: list[str]) -> None:
    def find(ctx: Any, call: durably.Call) -> Any:
        log.append(f"find {call.call_id}")
        return effects.Done("found")

    def charge() -> str:
        log.append("charge")
        raise Crash("lost")

    async def work() -> str:
        return await durably.step("charge", charge, effect=effects.once(reconcile=find))

    office = Office(app, work)
    await office.run()
    assert log == ["charge", "find 1.0/charge"]
    assert office.answers == ["found"]


async def test_tool_reads_that_an_outcome_is_unknown(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        try:
            await durably.step("mail", mail, effect=effects.once(on_doubt="tell"))
        except OutcomeUnknown:
            log.append("unknown")
        return "went on"

    def mail() -> None:
        log.append("mail")
        raise Crash("lost")

    office = Office(app, work)
    await office.run()
    assert office.answers == ["went on"]
    assert log == ["mail", "unknown"]


async def test_model_reads_what_the_tool_did_not_catch(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        await durably.step("mail", mail, effect=effects.once(on_doubt="tell"))
        return "sent"

    def mail() -> None:
        log.append("mail")
        raise Crash("lost")

    office = Office(app, work)
    run = await office.run()
    assert run.state is RunState.COMPLETED
    assert "outcome of this call" in str(office.answers[0])
    assert log == ["mail"]


async def test_step_waits_for_approval(app: Durably, log: list[str]) -> None:
    async def work(amount: float = 500.0) -> str:
        log.append("begin")
        refund = effects.once(approve=lambda args: args["amount"] > 100)
        return await durably.step("refund", pay, effect=refund, amount=amount)

    def pay(amount: float) -> str:
        log.append(f"pay {amount}")
        return "paid"

    office = Office(app, work)
    run = await office.suspended()
    (item,) = await app.inbox(kind="approval")
    assert item.effect is not None and item.effect.args == '{"amount":500.0}'
    await run.approve("1.0/refund", by="ann")
    await office.go_on(run)
    assert log == ["begin", "begin", "pay 500.0"]
    assert office.answers == ["paid"]
    with pytest.raises(TransitionRefused):
        await run.approve("1.0/refund")


async def test_denied_step_fails_in_the_tool(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        try:
            await durably.step("refund", pay, effect=effects.once(approve=True))
        except StepFailed as error:
            return f"no: {error}"
        return "paid"

    def pay() -> None:
        log.append("pay")

    office = Office(app, work)
    run = await office.suspended()
    await run.deny("1.0/refund", reason="too much")
    await office.go_on(run)
    assert office.answers == ["no: too much"]
    assert log == []


async def test_transactional_step_commits_with_its_result(app: Durably, log: list[str]) -> None:
    marker = {"sqlite": "?", "postgres": "%s"}[app.ledger.dialect]

    async def write(what: str) -> str:
        async with durably.current_call().transaction() as connection:
            for sql, given in (
                ("CREATE TABLE IF NOT EXISTS shop (what TEXT)", ()),
                (f"INSERT INTO shop VALUES ({marker})", (what,)),
            ):
                done = connection.execute(sql, given)
                if asyncio.iscoroutine(done):
                    await done
        return what

    async def work() -> str:
        await durably.step("book", write, "lamp", effect=effects.TRANSACTIONAL)
        log.append("booked")
        if len(log) == 1:
            raise NotDone("again")
        return "ok"

    office = Office(app, work)
    run = await office.go_on(await office.run())
    assert run.state is RunState.COMPLETED
    assert log == ["booked", "booked"]

    async def count() -> int:
        transaction = app.ledger.transaction()
        connection = await transaction.begin_async()
        rows = connection.execute("SELECT count(*) FROM shop")
        rows = await rows if asyncio.iscoroutine(rows) else rows
        row = rows.fetchone()
        row = await row if asyncio.iscoroutine(row) else row
        await transaction.close()
        return row[0]

    assert await count() == 1


async def test_steps_at_the_same_time_are_each_done_once(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        names = [f"mail {n}" for n in range(5)]
        await asyncio.gather(*(durably.step(name, mail, name) for name in names))
        if len(log) == 5:
            log.append("again")
            raise NotDone("again")
        return "ok"

    async def mail(name: str) -> None:
        log.append(name)

    office = Office(app, work)
    run = await office.go_on(await office.run())
    assert run.state is RunState.COMPLETED
    assert sorted(log) == ["again", *(f"mail {n}" for n in range(5))]


async def test_step_in_a_once_tool_is_kept_when_the_tool_runs_again(
    app: Durably, log: list[str]
) -> None:
    async def work() -> str:
        await durably.step("first", log.append, "first")
        if len(log) == 1:
            log.append("boom")
            raise Crash("boom")
        return "ok"

    office = Office(app, work, effect=effects.once())
    run = await office.suspended()
    await run.resolve("1.0", again=True)
    await office.go_on(run)
    assert run.state is RunState.COMPLETED
    assert log == ["first", "boom"]


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (effects.once(), "declare it metadata=effects.WAITS"),
        (effects.TRANSACTIONAL, "not in a TRANSACTIONAL tool"),
    ],
)
async def test_tool_that_cannot_run_again_cannot_wait(
    app: Durably, log: list[str], effect: dict[str, Any], said: str
) -> None:
    async def work() -> str:
        try:
            await durably.sleep(1)
        except DurablyError as error:
            return str(error)
        return "slept"

    office = Office(app, work, effect=effect)
    await office.run()
    assert said in office.answers[0]


async def test_name_of_a_step_is_used_once(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        await durably.step("mail", log.append, "one")
        try:
            await durably.step("mail", log.append, "two")
        except durably.ConfigError as error:
            return str(error)
        return "both"

    office = Office(app, work)
    await office.run()
    assert "give each another" in office.answers[0]
    assert log == ["one"]


async def test_step_outside_a_run_says_so(log: list[str]) -> None:
    with pytest.raises(DurablyError, match="only works inside a tool"):
        await durably.step("x", log.append, "x")


async def test_step_inside_a_step_says_so(app: Durably, log: list[str]) -> None:
    async def inner() -> None:
        await durably.step("inner", log.append, "inner")

    async def work() -> str:
        try:
            await durably.step("outer", inner, effect=effects.READ)
        except DurablyError as error:
            return str(error)
        return "both"

    office = Office(app, work)
    await office.run()
    assert "not inside a step" in office.answers[0]


async def test_step_of_a_dead_worker_is_in_doubt(app: Durably, log: list[str]) -> None:
    """The record as a killed process leaves it: an intent, and nothing after it."""
    done = asyncio.Event()

    async def work() -> str:
        return await durably.step("charge", charge)

    async def charge() -> str:
        log.append("charge")
        done.set()
        await asyncio.sleep(3600)
        return "never"

    office = Office(app, work, timeout=0.5)
    run = await app.enqueue(office.agent, "go", key="r1")
    await app.drain()
    await run.refresh()
    await app.drain()
    assert (await run.refresh()).state is RunState.SUSPENDED
    states = {e.call_id: e.state for e in await run.effects()}
    assert states == {"1.0/charge": EffectState.IN_DOUBT}
    assert log == ["charge"]


async def test_worker_that_leaves_hands_the_run_back_between_steps(
    app: Durably, log: list[str]
) -> None:
    """A long tool does not have to come to its end first, nor to be stopped in the middle."""
    leaving = asyncio.Event()

    async def work() -> str:
        for n in range(3):
            await durably.step(f"part {n}", part, n)
        return "ok"

    async def part(n: int) -> None:
        log.append(f"part {n}")
        if log == ["part 0"]:
            leaving.set()
            await let_leave.wait()

    let_leave = asyncio.Event()
    office = Office(app, work)
    run = await app.enqueue(office.agent, "go", key="r1")
    async with app.worker() as worker:
        await leaving.wait()
        stopping = asyncio.create_task(worker.stop())
        while not worker.leaving:
            await asyncio.sleep(0)
        let_leave.set()
        await stopping
    assert (await run.refresh()).state is RunState.AVAILABLE
    assert log == ["part 0"]
    await office.go_on(run)
    assert run.state is RunState.COMPLETED
    assert log == ["part 0", "part 1", "part 2"]
    assert [a.outcome for a in await run.attempts()] == ["handed_back", "completed"]
