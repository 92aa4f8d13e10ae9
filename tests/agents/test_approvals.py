"""Calls that wait for people: decided once, on the record, and carried out as decided."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic_ai import Agent, ApprovalRequired, RunContext
from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart

import durably
from durably import ConfigError, Durably, EffectState, Run, RunState, TransitionRefused, effects
from support.scripted import Script, call


class Till:
    """An agent that pays back, and looks; what really happened is in ``paid`` and ``looked``."""

    def __init__(self, app: Durably, *steps: Any, refund: Any, native: bool = False) -> None:
        self.paid: list[float] = []
        self.looked = 0
        self.script = Script(*steps, "done")
        agent = Agent(self.script.model, name="till")

        @agent.tool_plain(metadata=refund, requires_approval=native)
        async def pay_back(amount: float) -> str:
            self.paid.append(amount)
            return f"paid {amount}"

        @agent.tool_plain(metadata=effects.READ)
        async def look() -> str:
            self.looked += 1
            return "seen"

        @agent.tool
        async def judge(ctx: RunContext[None], amount: float) -> str:
            if amount > 5 and not ctx.tool_call_approved:
                raise ApprovalRequired(metadata={"why": "much"})
            self.paid.append(amount)
            return f"judged {amount}"

        app.register(agent)


async def suspended(app: Durably, key: str = "r1") -> Run[Any]:
    run = await app.enqueue("till", "pay back", key=key)
    await app.drain()
    assert (await run.refresh()).state is RunState.SUSPENDED
    return run


def told(run_history: list[ModelMessage], tool: str) -> list[Any]:
    return [
        part.content
        for message in run_history
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, ToolReturnPart) and part.tool_name == tool
    ]


POLICIES = {
    "once": effects.once(approve=True),
    "idempotent": effects.approved(effects.IDEMPOTENT),
    "read": effects.approved(effects.READ),
    "transactional": effects.approved(effects.TRANSACTIONAL),
}


@pytest.mark.parametrize("policy", POLICIES)
async def test_call_waits_for_approval_and_runs_once(app: Durably, policy: str) -> None:
    till = Till(app, [call("pay_back", amount=7.0)], refund=POLICIES[policy])
    run = await suspended(app)
    assert till.paid == []
    (item,) = await app.inbox()
    assert (item.run_key, item.kind, item.effect.call_id) == ("r1", "approval", "1.0")
    assert item.effect.request["schema"]["properties"]["amount"]["type"] == "number"
    await run.approve("1.0", by="ann", note="fine")
    await app.drain()
    assert await run.result(timeout=60) == "done"
    assert till.paid == [7.0]
    assert await app.inbox() == []
    (decision,) = await run.decisions()
    assert (decision.decision, decision.by, decision.note) == ("approved", "ann", "fine")
    assert till.script.requests == 2


async def test_tool_that_requires_approval_by_itself_does_too(app: Durably) -> None:
    till = Till(app, [call("pay_back", amount=7.0)], refund=effects.once(), native=True)
    run = await suspended(app)
    await run.approve("1.0")
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
    assert till.paid == [7.0]


async def test_tool_that_asks_for_approval_in_the_middle_does_too(app: Durably) -> None:
    till = Till(app, [call("judge", amount=7.0)], refund=effects.once())
    run = await suspended(app)
    assert (await app.inbox())[0].effect.request["why"] == "much"
    await run.approve("1.0")
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
    assert till.paid == [7.0]


async def test_arguments_decide_which_calls_wait(app: Durably) -> None:
    policy = effects.once(approve=lambda args: args["amount"] > 100)
    till = Till(
        app, [call("pay_back", amount=7.0)], [call("pay_back", amount=700.0)], refund=policy
    )
    await suspended(app)
    assert till.paid == [7.0]
    assert [item.effect.args for item in await app.inbox()] == ['{"amount":700.0}']


async def test_other_calls_of_the_response_run_first_and_are_kept(app: Durably) -> None:
    both = [call("pay_back", amount=7.0), call("look", "c2")]
    till = Till(app, both, refund=effects.once(approve=True))
    run = await suspended(app)
    assert (till.looked, till.paid) == (1, [])
    await run.approve("1.0")
    await app.drain()
    assert (till.looked, till.paid) == (1, [7.0])
    assert (await run.refresh()).state is RunState.COMPLETED


async def test_denied_call_never_runs_and_the_model_reads_why(app: Durably) -> None:
    till = Till(app, [call("pay_back", amount=7.0)], refund=effects.once(approve=True))
    run = await suspended(app)
    await run.deny("1.0", reason="Not without a receipt.", by="bob")
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
    assert till.paid == []
    assert "Not without a receipt." in str(till.script.seen[-1])
    (effect,) = await run.effects()
    assert (effect.state, effect.resolved_by) == (EffectState.DENIED, "bob")


@pytest.mark.parametrize("native", [False, True], ids=["by policy", "by pydantic-ai"])
async def test_approved_with_other_arguments_it_runs_with_those(app: Durably, native: bool) -> None:
    refund = effects.once() if native else effects.once(approve=True)
    till = Till(app, [call("pay_back", amount=70.0)], refund=refund, native=native)
    run = await suspended(app)
    await run.approve("1.0", args={"amount": 7.0}, by="ann")
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
    assert till.paid == [7.0]
    (decision,) = await run.decisions()
    assert (decision.args_before, decision.args_after) == ('{"amount":70.0}', '{"amount": 7.0}')


async def test_arguments_that_the_tool_does_not_take_are_refused(app: Durably) -> None:
    Till(app, [call("pay_back", amount=7.0)], refund=effects.once(approve=True))
    run = await suspended(app)
    with pytest.raises(ConfigError, match="amount: 'much' is not of type 'number'"):
        await run.approve("1.0", args={"amount": "much"})
    assert (await run.refresh()).state is RunState.SUSPENDED


async def test_decision_counts_once(app: Durably) -> None:
    Till(app, [call("pay_back", amount=7.0)], refund=effects.once(approve=True))
    run = await suspended(app)
    await run.approve("1.0", by="ann")
    with pytest.raises(TransitionRefused, match="is approved, settled by ann"):
        await run.deny("1.0", by="bob")
    assert [d.by for d in await run.decisions()] == ["ann"]


async def test_of_decisions_at_the_same_instant_one_counts(app: Durably) -> None:
    till = Till(app, [call("pay_back", amount=7.0)], refund=effects.once(approve=True))
    run = await suspended(app)
    others = [await app.get("r1") for _ in range(8)]
    said = await asyncio.gather(
        *(
            other.approve("1.0", by=f"p{n}") if n % 2 else other.deny("1.0", by=f"p{n}")
            for n, other in enumerate(others)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Run) for answer in said) == 1
    assert all(isinstance(answer, Run | TransitionRefused) for answer in said)
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
    assert len(till.paid) == (await run.decisions())[0].decision.count("approved")


async def test_several_calls_are_decided_in_any_order(app: Durably) -> None:
    three = [call("pay_back", f"c{n}", amount=float(n)) for n in range(3)]
    till = Till(app, three, refund=effects.once(approve=True))
    run = await suspended(app)
    await run.deny("1.1")
    await run.approve("1.2")
    assert (await run.refresh()).state is RunState.SUSPENDED
    await run.approve("1.0")
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
    assert sorted(till.paid) == [0.0, 2.0]


async def test_decision_about_other_arguments_is_refused(app: Durably) -> None:
    Till(app, [call("pay_back", amount=7.0)], refund=effects.once(approve=True))
    run = await suspended(app)
    with pytest.raises(TransitionRefused, match="look at them again"):
        await run.approve("1.0", expected={"amount": 6.0})
    await run.approve("1.0", expected={"amount": 7.0})


async def test_decision_about_a_cancelled_run_is_refused(app: Durably) -> None:
    Till(app, [call("pay_back", amount=7.0)], refund=effects.once(approve=True))
    run = await suspended(app)
    await run.cancel()
    with pytest.raises(TransitionRefused, match="is cancelled"):
        await run.approve("1.0")


async def test_approved_call_in_doubt_that_did_not_happen_needs_no_second_approval(
    app: Durably,
) -> None:
    till = Till(app, [call("pay_back", amount=7.0)], refund=effects.once(approve=True))
    run = await suspended(app)
    await run.approve("1.0")
    from durably.ledger import attempts, steps, workers
    from durably.ledger.written import Step, ToolCall

    # An attempt that recorded its intent, and died.
    await app.ledger.write(workers.register, "w", "w", 1, {"agents": 1}, 30.0)
    (claimed,) = await app.ledger.write(attempts.claim, "w", "agents", 1)
    (effect,) = await run.effects()
    again = ToolCall(effect.position, "pay_back", "c", effect.args, "once", "ask", "k")
    await app.ledger.write(steps.record_intent, claimed.claim, again)
    await app.ledger.write(attempts.hand_back, claimed.claim, Step())
    await app.drain()
    assert [(i.kind, i.effect.state) for i in await app.inbox()] == [("doubt", "in_doubt")]
    await run.resolve("1.0", again=True)
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
    assert till.paid == [7.0]


# --- the inbox


async def test_inbox_is_filtered(app: Durably) -> None:
    Till(app, [call("pay_back", amount=7.0)], refund=effects.once(approve=True))
    await app.enqueue("till", "x", key="a", tags=["vip"])
    await app.enqueue("till", "x", key="b", queue="slow")
    await app.drain({"agents": 1, "slow": 1})
    assert sorted(i.run_key for i in await app.inbox()) == ["a", "b"]
    assert [i.run_key for i in await app.inbox(tag="vip")] == ["a"]
    assert [i.run_key for i in await app.inbox(queue="slow")] == ["b"]
    assert [i.run_key for i in await app.inbox(agent="other")] == []
    assert len(await app.inbox(kind="approval")) == 2
    assert [i.run_key for i in await app.inbox(kind="doubt")] == []
    with pytest.raises(ConfigError, match="'nonsense' waits for nobody"):
        await app.inbox(kind="nonsense")


# --- expiry


async def settled_by_the_clock(app: Durably, run: Run[Any]) -> None:
    """Wait until a worker has looked at the clock."""
    async with app.worker(), asyncio.timeout(120):
        while not await run.decisions():
            await asyncio.sleep(0.02)


async def test_call_that_nobody_approves_in_time_is_denied_by_the_clock(app: Durably) -> None:
    policy = effects.once(approve=True, approve_within=0.01)
    till = Till(app, [call("pay_back", amount=7.0)], refund=policy)
    run = await app.enqueue("till", "pay back", key="r1")
    async with app.worker():
        assert await run.result(timeout=120) == "done"
    assert till.paid == []
    assert "suspended" in [event.kind for event in await run.events()]
    (decision,) = await run.decisions()
    assert (decision.decision, decision.by) == ("expired", "expiry")
    assert "Nobody approved this call in time." in str(till.script.seen[-1])


async def test_escalated_call_is_tagged_and_goes_on_waiting(app: Durably) -> None:
    policy = effects.once(approve=True, approve_within=0.01, on_expiry="escalate")
    till = Till(app, [call("pay_back", amount=7.0)], refund=policy)
    run = await suspended(app)
    await settled_by_the_clock(app, run)
    assert (await run.refresh()).record.tags == ["escalated"]
    assert [i.run_key for i in await app.inbox(tag="escalated")] == ["r1"]
    await run.approve("1.0")
    await app.drain()
    assert till.paid == [7.0]
    assert [d.decision for d in await run.decisions()] == ["escalated", "approved"]


async def test_call_may_go_on_waiting(app: Durably) -> None:
    policy = effects.once(approve=True, approve_within=0.01, on_expiry="wait")
    till = Till(app, [call("pay_back", amount=7.0)], refund=policy)
    run = await suspended(app)
    await settled_by_the_clock(app, run)
    await run.approve("1.0")
    await app.drain()
    assert till.paid == [7.0]
    assert [d.decision for d in await run.decisions()] == ["expired", "approved"]


# --- questions


def asker(app: Durably, *steps: Any) -> Script:
    script = Script(*steps, "done")
    app.register(Agent(script.model, name="till", toolsets=[durably.human.toolset()]))
    return script


async def test_question_waits_for_an_answer(app: Durably) -> None:
    script = asker(app, [call("ask_person", question="Which colour?")])
    run = await suspended(app)
    (item,) = await app.inbox(kind="question")
    assert item.effect.request == {"question": "Which colour?"}
    await run.answer("1.0", "blue", by="ann")
    await app.drain()
    assert await run.result(timeout=60) == "done"
    assert told(script.seen[-1], "ask_person") == ["blue"]
    assert [(d.decision, d.by) for d in await run.decisions()] == [("answered", "ann")]


async def test_choice_is_one_of_the_choices(app: Durably) -> None:
    script = asker(app, [call("ask_choice", question="Which?", choices=["red", "blue"])])
    run = await suspended(app)
    with pytest.raises(ConfigError, match="'green' is none of the choices: red, blue"):
        await run.answer("1.0", "green")
    await run.answer("1.0", "red")
    await app.drain()
    assert told(script.seen[-1], "ask_choice") == ["red"]


async def test_form_is_filled_in_as_its_schema_says(app: Durably) -> None:
    form = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name"],
    }
    script = asker(app, [call("ask_form", question="Who?", form=form)])
    run = await suspended(app)
    with pytest.raises(ConfigError, match="not what the form asks for: 'name' is a required"):
        await run.answer("1.0", {"age": 3})
    with pytest.raises(ConfigError, match="age: 'old' is not of type 'integer'"):
        await run.answer("1.0", {"name": "Ann", "age": "old"})
    await run.answer("1.0", {"name": "Ann", "age": 30})
    await app.drain()
    assert told(script.seen[-1], "ask_form") == [{"name": "Ann", "age": 30}]


# --- declarations


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: effects.approved({}), "approved\\(\\) takes"),
        (lambda: effects.approved(effects.READ, when=False), "approves nothing"),
        (lambda: effects.approved(effects.READ, within=0), "more than 0 seconds"),
        (lambda: effects.approved(effects.READ, within=float("nan")), "more than 0 seconds"),
        (lambda: effects.once(approve=True, on_expiry="later"), "'deny', 'escalate' or 'wait'"),
        (
            lambda: effects.once(approve=True, escalate_queue="urgent"),
            "escalate_queue='urgent': the name of a queue, with on_expiry='escalate'",
        ),
    ],
)
def test_approval_that_cannot_work_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
