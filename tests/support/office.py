"""An agent whose one tool is the test's own, and what really happened in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_ai import Agent

from durably import Durably, Run, RunState, effects
from support.scripted import NOW, Script, call


class Office:
    """Runs a tool that waits, or does things step by step; ``log`` says what it really did."""

    def __init__(
        self,
        app: Durably,
        tool: Callable[..., Awaitable[Any]],
        *,
        effect: dict[str, Any] = effects.WAITS,
        name: str = "office",
        **options: Any,
    ) -> None:
        self.app = app
        self.script = Script([call("work")], "done")
        self.agent = Agent(self.script.model, name=name)
        self.agent.tool_plain(tool, name="work", metadata=effect)
        app.register(self.agent, retry=NOW, **options)

    async def run(self, key: str = "r1", **options: Any) -> Run[Any]:
        """The run, as far as it gets by itself."""
        run = await self.app.enqueue(self.agent, "go", key=key, **options)
        await self.app.drain()
        return await run.refresh()

    async def suspended(self, key: str = "r1", **options: Any) -> Run[Any]:
        run = await self.run(key, **options)
        assert run.state is RunState.SUSPENDED, run.record
        return run

    async def go_on(self, run: Run[Any]) -> Run[Any]:
        await self.app.drain()
        return await run.refresh()

    @property
    def answers(self) -> list[Any]:
        """What the model was told, at last."""
        return [p.content for p in self.script.seen[-1][-1].parts]  # pyright: ignore


async def step_states(run: Run[Any]) -> dict[str, str]:
    """How each step and wait of a run is, by its call id."""
    return {e.call_id: str(e.state) for e in await run.effects() if e.position.step}
