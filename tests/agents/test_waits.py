"""Tools that wait for a time or a signal: suspended meanwhile, and passed exactly once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic_ai import Agent

import durably
from durably import Durably, RunState, SignalTimeout, TransitionRefused, effects
from support.office import Office, step_states
from support.scripted import NOW, Script, call


async def test_sleeping_run_is_suspended_and_wakes_by_itself(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        log.append("begin")
        await durably.step("mail", log.append, "mail")
        await durably.sleep(0.3)
        return "slept"

    office = Office(app, work)
    run = await app.enqueue(office.agent, "go", key="r1")
    async with app.worker():
        assert await run.result(timeout=120) == "done"
    assert log == ["begin", "mail", "begin"]
    kinds = [event.kind for event in await run.events()]
    assert kinds.count("suspended") == 1 and kinds.count("woken") == 1
    assert (await run.refresh()).record.failures == 0


async def test_sleep_until_a_moment_that_is_past_goes_on(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        await durably.sleep(datetime.now(UTC) - timedelta(hours=1))
        return "slept"

    office = Office(app, work)
    run = await office.run()
    assert run.state is RunState.COMPLETED


async def test_sleeping_run_says_until_when(app: Durably, log: list[str]) -> None:
    moment = datetime(2099, 1, 1, tzinfo=UTC)

    async def work() -> str:
        await durably.sleep(moment)
        return "slept"

    office = Office(app, work)
    run = await office.suspended()
    assert run.record.waiting_on == {
        "kind": "waits",
        "waits": [{"call_id": "1.0/sleep", "for": "timer", "until": moment.isoformat()}],
    }
    assert run.describe_waiting() == "Run 'r1' waits until 2099-01-01T00:00:00+00:00."
    assert await app.inbox() == []
    await run.cancel()
    assert run.state is RunState.CANCELLED


async def test_time_of_a_sleep_is_counted_once(app: Durably, log: list[str]) -> None:
    """However often the tool runs again meanwhile, it sleeps no longer."""

    async def work() -> str:
        waited = asyncio.gather(durably.sleep(3600), durably.wait_for_signal("go"))
        await waited
        return "both"

    office = Office(app, work)
    run = await office.suspended()
    before = {e.call_id: e.expires_at for e in await run.effects()}
    await app.signal("r1", "go")
    await office.go_on(run)
    assert run.state is RunState.SUSPENDED
    after = {e.call_id: e.expires_at for e in await run.effects()}
    assert after["1.0/sleep"] == before["1.0/sleep"] is not None


@pytest.mark.parametrize("when", ["before", "after"])
async def test_signal_arrives_once_whenever_it_is_sent(
    app: Durably, log: list[str], when: str
) -> None:
    async def work() -> Any:
        return await durably.wait_for_signal("paid")

    office = Office(app, work)
    run = await app.enqueue(office.agent, "go", key="r1")
    if when == "before":
        await app.signal("r1", "paid", {"amount": 7}, by="bank")
    await app.drain()
    if when == "after":
        assert (await run.refresh()).state is RunState.SUSPENDED
        assert run.describe_waiting() == "Run 'r1' waits for the signal 'paid'."
        await app.signal("r1", "paid", {"amount": 7}, by="bank")
        await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
    assert office.answers == [{"amount": 7}]
    (signal,) = await run.signals()
    assert signal.taken_by is not None and signal.taken_by.call_id == "1.0/signal paid"
    assert (signal.by, signal.payload) == ("bank", {"amount": 7})


async def test_signal_during_the_attempt_is_taken(app: Durably, log: list[str]) -> None:
    """Sent after the wait was recorded and before the run is suspended: it is not left asleep."""

    async def work() -> Any:
        return await durably.wait_for_signal("paid")

    office = Office(app, work)

    @office.agent.tool_plain(metadata=effects.READ)
    async def slow() -> str:
        while not any(e.position.step for e in await run.effects()):
            await asyncio.sleep(0.01)
        await app.signal("r1", "paid", "now")
        return "slow"

    office.script.steps[0] = [call("work", "a"), call("slow", "b")]
    run = await app.enqueue(office.agent, "go", key="r1")
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
    assert sorted(map(str, office.answers)) == ["now", "slow"]


async def test_each_wait_takes_one_signal_in_their_order(app: Durably, log: list[str]) -> None:
    async def work() -> list[Any]:
        return [await durably.wait_for_signal("part") for _ in range(3)]

    office = Office(app, work)
    run = await office.suspended()
    for part in ("a", "b", "c", "d"):
        await app.signal("r1", "part", part)
    await office.go_on(run)
    assert office.answers == [["a", "b", "c"]]
    assert [s.taken_by is not None for s in await run.signals()] == [True, True, True, False]


async def test_signal_sent_again_under_its_id_does_nothing(app: Durably, log: list[str]) -> None:
    async def work() -> list[Any]:
        first = await durably.wait_for_signal("part")
        return [first, await durably.wait_for_signal("part")]

    office = Office(app, work)
    run = await office.suspended()
    for part in ("a", "a", "b"):
        await app.signal("r1", "part", part, signal_id=part)
    await office.go_on(run)
    assert office.answers == [["a", "b"]]


async def test_run_that_is_over_takes_no_signal(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        return "ok"

    await Office(app, work).run()
    with pytest.raises(TransitionRefused, match="waits for no signal any more"):
        await app.signal("r1", "late")


async def test_wait_for_a_signal_is_over_in_time(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        try:
            await durably.wait_for_signal("paid", timeout=0.2)
        except TimeoutError as error:
            return str(error)
        return "paid"

    office = Office(app, work)
    run = await app.enqueue(office.agent, "go", key="r1")
    async with app.worker():
        await run.result(timeout=120)
    assert office.answers == ["The signal 'paid' did not come in time."]
    assert await step_states(run) == {"1.0/signal paid": "failed"}


async def test_wait_that_was_in_vain_may_have_a_default(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        return await durably.wait_for_signal("paid", timeout=timedelta(0), default="unpaid")

    office = Office(app, work)
    run = await app.enqueue(office.agent, "go", key="r1")
    async with app.worker():
        await run.result(timeout=120)
    assert office.answers == ["unpaid"]


async def test_model_reads_of_a_signal_that_did_not_come(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        await durably.wait_for_signal("paid", timeout=0.1)
        return "paid"

    office = Office(app, work)
    run = await app.enqueue(office.agent, "go", key="r1")
    async with app.worker():
        await run.result(timeout=120)
    assert "did not come in time" in str(office.answers)
    assert issubclass(SignalTimeout, TimeoutError)


async def test_approval_beside_a_wait_is_asked_at_once_and_carried_out(
    app: Durably, log: list[str]
) -> None:
    """Who waits for a person need not wait for the other's time, nor the other way round."""

    async def work() -> str:
        await durably.wait_for_signal("paid")
        return "paid"

    office = Office(app, work)

    @office.agent.tool_plain(metadata=effects.once(approve=True))
    async def refund() -> str:
        log.append("refund")
        return "refunded"

    office.script.steps[0] = [call("work", "a"), call("refund", "b")]
    run = await office.suspended()
    assert [item.kind for item in await app.inbox()] == ["approval"]
    await run.approve("1.1")
    await office.go_on(run)
    assert log == ["refund"]
    assert run.state is RunState.SUSPENDED
    assert run.record.waiting_on is not None and run.record.waiting_on["kind"] == "waits"
    await app.signal("r1", "paid")
    await office.go_on(run)
    assert run.state is RunState.COMPLETED
    assert log == ["refund"]


async def test_approved_tool_may_wait(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        log.append("begin")
        await durably.wait_for_signal("paid")
        return "paid"

    office = Office(app, work, effect=effects.approved(effects.WAITS))
    run = await office.suspended()
    assert log == []
    await run.approve("1.0")
    await office.go_on(run)
    assert run.state is RunState.SUSPENDED
    await app.signal("r1", "paid")
    await office.go_on(run)
    assert (run.state, run.record.failures) == (RunState.COMPLETED, 0)
    assert log == ["begin", "begin"]


@pytest.mark.parametrize("kind", ["sleep", "signal paid", "run child"])
async def test_person_who_decides_about_a_wait_is_refused_and_strands_nobody(
    app: Durably, log: list[str], kind: str
) -> None:
    """What ends a wait wakes the run; a person's word about it would have ended it alone."""

    async def work() -> Any:
        match kind:
            case "sleep":
                return await durably.sleep(3600)
            case "run child":
                return await durably.run_child("waiter", "wait", key="child")
            case _:
                return await durably.wait_for_signal("paid")

    async def wait() -> Any:
        return await durably.wait_for_signal("go")

    Office(app, wait, name="waiter")
    office = Office(app, work)
    run = await office.suspended()
    call_id = f"1.0/{kind}"
    for said in ({"done": "over"}, {"failed": "no"}, {"again": True}):
        with pytest.raises(TransitionRefused, match="which nobody decides about: it is over when"):
            await run.resolve(call_id, **said)
    for refused in (run.approve(call_id), run.deny(call_id), run.answer(call_id, "over")):
        with pytest.raises(TransitionRefused, match="waits for n"):
            await refused
    assert await step_states(run) == {call_id: "awaiting"}
    assert (await run.refresh()).state is RunState.SUSPENDED


async def test_waits_in_a_task_group_suspend_the_run(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        async with asyncio.TaskGroup() as group:
            one = group.create_task(durably.wait_for_signal("one"))
            two = group.create_task(durably.wait_for_signal("two"))
        return f"{one.result()} {two.result()}"

    office = Office(app, work)
    run = await office.suspended()
    await app.signal("r1", "two", 2)
    await app.signal("r1", "one", 1)
    await office.go_on(run)
    assert office.answers == ["1 2"]


async def test_retried_run_goes_on_waiting(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        await durably.wait_for_signal("paid")
        return "paid"

    office = Office(app, work)
    run = await office.suspended()
    await run.cancel()
    await run.retry()
    await office.go_on(run)
    assert run.state is RunState.SUSPENDED
    await app.signal("r1", "paid")
    await office.go_on(run)
    assert run.state is RunState.COMPLETED


async def test_timer_that_rang_while_its_run_was_cancelled_is_over(
    app: Durably, log: list[str]
) -> None:
    async def work() -> str:
        await durably.sleep(0.1)
        return "slept"

    office = Office(app, work)
    run = await app.enqueue(office.agent, "go", key="r1")
    async with app.worker():
        async for event in run.watch():
            if event.kind == "suspended":
                await run.cancel()
    async with app.worker():  # Looks after the overdue timer of a run that is over, once.
        while any(e.expires_at is not None for e in await run.effects()):
            await asyncio.sleep(0.02)
    await run.retry()
    await office.go_on(run)
    assert run.state is RunState.COMPLETED


async def test_sleeper_in_a_script_is_waited_for(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        await durably.sleep(0.2)
        return "slept"

    office = Office(app, work)
    assert await app.run(office.agent, "go", key="r1") == "done"


async def test_wait_outlives_a_new_version_of_the_tool(app: Durably, log: list[str]) -> None:
    """A deploy in the middle: what the new code waits for is what counts."""

    async def work() -> str:
        return await durably.wait_for_signal("old" if not log else "new")

    office = Office(app, work)
    run = await office.suspended()
    log.append("deployed")
    await app.signal("r1", "old", 1)
    await office.go_on(run)
    assert run.state is RunState.SUSPENDED
    await app.signal("r1", "new", 2)
    await office.go_on(run)
    assert office.answers == [2]


async def test_read_tool_may_wait_as_well(app: Durably, log: list[str]) -> None:
    script = Script([call("look")], "done")
    agent = Agent(script.model, name="reader")

    @agent.tool_plain(metadata=effects.READ)
    async def look() -> str:
        return await durably.wait_for_signal("ready")

    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "go", key="r1")
    await app.drain()
    await app.signal("r1", "ready", "now")
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
