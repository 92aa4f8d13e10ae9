"""Output functions: they may act on the world, so they are not run twice silently."""

from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, TextOutput, ToolOutput
from pydantic_ai.capabilities import AbstractCapability

from durably import Durably, NotDone, RunState, current_call, effects
from support.scripted import NOW, Script, call


class Ticket(BaseModel):
    number: int


class FailAfter(AbstractCapability[Any]):
    """Fails the attempt after the output was made, as often as it was told to."""

    left = 1

    async def after_run(self, ctx: Any, *, result: Any) -> Any:
        if self.left:
            self.left -= 1
            raise RuntimeError("after the output")
        return result


@pytest.mark.parametrize("text", [True, False])
async def test_a_finished_output_function_is_not_run_again(
    app: Durably, log: list[str], text: bool
) -> None:
    def close_ticket(number: str) -> Ticket:
        assert current_call().idempotency_key.endswith(":1.0")
        log.append(number)
        return Ticket(number=int(number))

    output: Any = TextOutput(close_ticket) if text else ToolOutput(close_ticket, name="close")
    script = Script("42") if text else Script([call("close", number="42")])
    agent = Agent(script.model, output_type=output, name="closer", capabilities=[FailAfter()])
    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 2
    assert (await run.refresh()).output() == Ticket(number=42)
    assert log == ["42"]
    assert script.requests == 1


@pytest.mark.parametrize(
    ("error", "times", "state"),
    [
        (RuntimeError("sent, no answer"), 1, RunState.SUSPENDED),
        (NotDone("closed"), 2, RunState.COMPLETED),
        (ModelRetry("a number, please"), 2, RunState.COMPLETED),
    ],
)
async def test_an_output_function_that_raises(
    app: Durably, log: list[str], error: Exception, times: int, state: RunState
) -> None:
    errors = [error]

    def close_ticket(number: str) -> str:
        log.append(number)
        if errors:
            raise errors.pop()
        return f"closed {number}"

    agent = Agent(Script("42", "42").model, output_type=TextOutput(close_ticket), name="closer")
    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).state is state
    assert len(log) == times
    if state is RunState.SUSPENDED:
        await run.resolve("1.0", done="closed by hand")
        await app.drain()
        assert (await run.refresh()).output() == "closed by hand"
        assert len(log) == times


async def test_under_a_read_default_nothing_is_recorded(app: Durably, log: list[str]) -> None:
    def words(text: str) -> list[str]:
        log.append(text)
        return text.split()

    agent = Agent(Script("so it is").model, output_type=TextOutput(words), name="words")
    app.register(agent, default_effect=effects.READ)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == ["so", "it", "is"]
    assert await run.effects() == []
