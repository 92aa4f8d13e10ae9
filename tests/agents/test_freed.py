"""What a run holds in memory is free when it ends, without the garbage collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext

import durably
from durably import Durably, RunInfo, RunState, effects
from support.scripted import Script, call

POLICIES = {
    "read": effects.READ,
    "idempotent": effects.IDEMPOTENT,
    "once": effects.once(),
    "transactional": effects.TRANSACTIONAL,
    "waits": effects.WAITS,
}


class Deps:
    """What hangs on a run: its contexts hold it, and they hold its messages."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.usefixtures("no_collector")
async def test_run_is_free_when_it_ends(app: Durably, policy: str) -> None:
    made: list[weakref.ref[Deps]] = []
    metadata: dict[str, Any] = dict(POLICIES[policy])
    model = Script(call("look", item=1), call("look", item=2), "done")
    agent = Agent(model, deps_type=Deps, name="support")

    @agent.tool(metadata=metadata)
    async def look(ctx: RunContext[Deps], item: int) -> str:
        if policy == "waits":
            await durably.step("inside", dict, effect=effects.READ)
        return f"{item}"

    def deps(info: RunInfo) -> Deps:
        new = Deps()
        made.append(weakref.ref(new))
        return new

    app.register(agent, deps=deps)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
    assert [one() for one in made] == [None]
