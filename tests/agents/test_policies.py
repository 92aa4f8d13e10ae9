"""Effect policies: what is run again, what is asked, what is told."""

import asyncio
import errno
from typing import Any

import pytest
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import (
    Durably,
    EffectState,
    NotDone,
    RunState,
    TransitionRefused,
    boundaries,
    current_call,
    effects,
)
from durably.ledger import decisions
from support.ledgers import PATIENCE_SECONDS
from support.scripted import NOW, Script, call, tool_texts


def refunds(script: Script, log: list[str], policy: dict[str, Any] | None, *errors: Exception):
    """An agent with one tool that does its work and then raises, as often as there are errors."""
    agent = Agent(script.model, name="support")
    left = list(errors)

    @agent.tool_plain(metadata=policy)
    def refund(amount: int) -> str:
        log.append(f"{amount} {current_call().idempotency_key}")
        if left:
            raise left.pop(0)
        return f"refunded {amount}"

    return agent


ONE_REFUND = ([call("refund", amount=5)], "done")


async def test_idempotent_result_is_durable_while_the_model_still_thinks(app: Durably) -> None:
    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse([ToolCallPart("put", {})])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not [e for e in await run.effects() if e.state is EffectState.DONE]:
                await asyncio.sleep(0.01)
        return ModelResponse([TextPart("done")])

    agent = Agent(FunctionModel(answer), name="putter")

    @agent.tool_plain(metadata=effects.IDEMPOTENT)
    def put() -> str:
        return "put"

    app.register(agent)
    run = await app.enqueue(agent, "go", key="k")
    await app.drain()
    assert (await run.refresh()).output() == "done"


async def test_read_and_idempotent_tools_run_again_with_the_same_key(
    app: Durably, log: list[str]
) -> None:
    for kind in (effects.READ, effects.IDEMPOTENT):
        log.clear()
        agent = refunds(Script(*ONE_REFUND), log, kind, RuntimeError("boom"))
        agent.name = f"support-{kind[effects.METADATA_KEY].kind}"
        app.register(agent, retry=NOW)
        run = await app.enqueue(agent, "hi")
        await app.drain()
        assert (await run.refresh()).output() == "done"
        assert log == [f"5 {run.key}:1.0"] * 2
        assert run.record.failures == 1


async def test_a_recorded_result_is_never_produced_again(app: Durably, log: list[str]) -> None:
    script = Script([call("refund", amount=5)], [call("refund", amount=7)], "done")
    script.fail_once[2] = RuntimeError("the model is down")
    agent = refunds(script, log, None)
    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 2
    assert (await run.refresh()).output() == "done"
    assert log == [f"5 {run.key}:1.0", f"7 {run.key}:3.0"]  # both calls are called call_0
    assert script.requests == 4
    # The model was sent the same history again.
    assert tool_texts(script.seen[2]) == tool_texts(script.seen[3])


async def test_an_undeclared_tool_that_raises_asks_a_person(app: Durably, log: list[str]) -> None:
    agent = refunds(Script(*ONE_REFUND), log, None, RuntimeError("timeout after sending"))
    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    await run.refresh()
    assert run.state is RunState.SUSPENDED
    (item,) = await app.inbox()
    assert (item.run_key, item.effect.call_id) == (run.key, "1.0")
    assert item.effect.state is EffectState.IN_DOUBT
    assert item.effect.error == "RuntimeError: timeout after sending"
    assert await app.drain() == 0
    assert len(log) == 1


@pytest.mark.parametrize(
    ("decision", "told", "times"),
    [
        ({"done": "refunded by hand"}, "refunded by hand", 1),
        ({"failed": "the bank said no"}, "the bank said no", 1),
        ({"again": True}, "refunded 5", 2),
    ],
)
async def test_a_decision_settles_a_call_in_doubt(
    app: Durably, log: list[str], decision: dict[str, Any], told: str, times: int
) -> None:
    script = Script(*ONE_REFUND)
    agent = refunds(script, log, None, RuntimeError("gone"))
    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    await run.resolve("1.0", **decision, by="ana")
    assert run.state is RunState.AVAILABLE
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert told in tool_texts(script.seen[-1])[-1]
    assert len(log) == times
    with pytest.raises(TransitionRefused):
        await run.resolve("1.0", done=1)


async def test_tell_says_that_the_outcome_is_unknown(app: Durably, log: list[str]) -> None:
    script = Script(*ONE_REFUND)
    agent = refunds(script, log, effects.once(on_doubt="tell"), RuntimeError("gone"))
    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert "unknown" in tool_texts(script.seen[-1])[0]
    assert len(log) == 1
    assert (await run.effects())[0].state is EffectState.IN_DOUBT


async def test_retry_runs_it_again(app: Durably, log: list[str]) -> None:
    agent = refunds(Script(*ONE_REFUND), log, effects.once(on_doubt="retry"), RuntimeError("gone"))
    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert log == [f"5 {run.key}:1.0"] * 2


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    ("answer", "times", "told"),
    [
        (effects.Done("found in the books"), 1, "found in the books"),
        (NotDone("nothing in the books"), 2, "refunded 5"),
        (None, 1, None),
    ],
)
async def test_reconcile_is_asked_first(
    app: Durably, log: list[str], sync: bool, answer: Any, times: int, told: str | None
) -> None:
    asked: list[str] = []

    def find(ctx: RunContext[None], this: Any) -> Any:
        asked.append(this.idempotency_key)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def find_async(ctx: RunContext[None], this: Any) -> Any:
        return find(ctx, this)

    script = Script(*ONE_REFUND)
    policy = effects.once(reconcile=find if sync else find_async)
    agent = refunds(script, log, policy, RuntimeError("gone"))
    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    await run.refresh()
    assert asked == [f"{run.key}:1.0"]
    assert len(log) == times
    if told is None:
        assert run.state is RunState.SUSPENDED
    else:
        assert run.state is RunState.COMPLETED
        assert tool_texts(script.seen[-1]) == [told]


async def test_a_call_that_never_happens_is_not_repeated_without_end_in_one_attempt(
    app: Durably, log: list[str]
) -> None:
    def find(ctx: RunContext[None], this: Any) -> Any:
        raise NotDone

    agent = Agent(Script(*ONE_REFUND).model, name="support")

    @agent.tool_plain(metadata=effects.once(reconcile=find))
    def refund(amount: int) -> str:
        log.append("asked the bank")
        raise RuntimeError("the bank is closed")

    app.register(agent, retry=NOW, max_attempts=2)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 2
    assert (await run.refresh()).state is RunState.DISCARDED
    assert "the bank is closed" in str(run.record.error)
    assert len(log) <= 4, "at most once more in each attempt"


@pytest.mark.parametrize(
    "error",
    [NotDone("the shop is closed"), ConnectionRefusedError(errno.ECONNREFUSED, "refused")],
)
async def test_a_call_that_certainly_did_not_happen_is_tried_again(
    app: Durably, log: list[str], error: Exception
) -> None:
    agent = refunds(Script(*ONE_REFUND), log, None, error)
    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 2
    assert (await run.refresh()).output() == "done"
    assert len(log) == 2
    assert run.record.failures == 1


async def test_on_resume_the_model_sees_the_retry_that_it_saw(app: Durably, log: list[str]) -> None:
    for name, policy in (("once", None), ("read", effects.READ)):
        log.clear()
        script = Script([call("pick", n=1)], [call("pick", n=2)], "done")
        script.fail_once[1] = RuntimeError("the model is down")
        agent = Agent(script.model, name=name)

        @agent.tool_plain(metadata=policy)
        def pick(n: int) -> str:
            log.append(str(n))
            if n == 1:
                raise ModelRetry("take two")
            return "two it is"

        app.register(agent, retry=NOW)
        run = await app.enqueue(agent, "hi")
        await app.drain()
        assert (await run.refresh()).output() == "done"
        assert log == ["1", "2"]
        first, second = script.seen[1], script.seen[2]
        assert "take two" in str(first[-1].parts[-1].content)
        assert str(first[-1].parts[-1].content) == str(second[-1].parts[-1].content)


async def test_a_result_that_is_not_json_names_the_tool_and_loses_nothing(
    app: Durably, log: list[str]
) -> None:
    agent = Agent(Script([call("fetch")], "done").model, name="odd")

    @agent.tool_plain
    def fetch() -> object:
        log.append("fetched")
        return object()

    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    await run.refresh()
    assert run.state is RunState.DISCARDED
    assert "'fetch'" in str(run.record.error)
    (effect,) = await run.effects()
    assert (
        effect.state is EffectState.IN_DOUBT
    )  # it happened: running it again is not ours to decide
    assert len(await run.history()) == 2
    await run.retry()
    await app.drain()
    await run.resolve("1.0", done="what it was")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert log == ["fetched"]


@pytest.mark.parametrize("as_output", [False, True], ids=["tool", "output"])
async def test_call_that_may_have_happened_stays_in_doubt_when_its_repeat_did_not(
    app: Durably, log: list[str], as_output: bool
) -> None:
    """No silent repeat: `NotDone` is said of the second try, and the first one may have paid."""
    errors: list[Exception] = [RuntimeError("timeout after sending"), NotDone("refused")]

    def refund(amount: int) -> str:
        log.append(str(amount))
        raise errors.pop(0)

    policy = effects.once(on_doubt="retry")
    if as_output:
        script = Script([call("final_result", "a", amount=5)])
        agent = Agent(script.model, output_type=refund, name="refunds")
        app.register(agent, retry=NOW, default_effect=policy, max_attempts=2)
    else:
        agent = Agent(Script(*ONE_REFUND).model, name="refunds")
        agent.tool_plain(metadata=policy)(refund)
        app.register(agent, retry=NOW, max_attempts=2)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).state is RunState.DISCARDED
    assert log == ["5", "5"]
    assert [e.state for e in await run.effects()] == [EffectState.IN_DOUBT]


async def test_approved_call_that_is_withdrawn_meanwhile_runs_instead_of_being_told_unknown(
    app: Durably, log: list[str]
) -> None:
    """No silent repeat: the model was told of a doubt that the ledger did not have."""
    script = Script(*ONE_REFUND)
    policy = effects.once(on_doubt="tell", approve=True)
    agent = refunds(script, log, policy, RuntimeError("gone"))
    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    await run.approve("1.0")
    outcomes: list[str] = []

    def say_again(boundary: str) -> None:
        outcomes.extend([boundary] if boundary == "outcome:before" else [])
        if boundary == "outcome:before" and len(outcomes) == 2:
            # Between the record that it is in doubt and the record that the model is told.
            app.ledger.write_blocking(
                decisions.resolve, run.key, "1.0", None, None, None, "ana", "it did not happen"
            )

    boundaries.observe(say_again)
    try:
        await app.drain()
    finally:
        boundaries.observe(None)
    assert (await run.refresh()).output() == "done"
    assert tool_texts(script.seen[-1]) == ["refunded 5"]
    assert [e.state for e in await run.effects()] == [EffectState.DONE]
    assert len(log) == 2
