"""The application of these tests as it is deployed: ``durably worker --app wire.shop:make``.

Owns its agents, which reach their models over HTTP with the real clients; what those answer is
`wire.provider`'s. ``WIRE`` says in JSON where the providers are, and where charges are noted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent, RunContext
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from durably import Durably, RunInfo, current_call, effects
from support.scripted import NOW
from wire.provider import script

PROTOCOLS = ("chat", "responses", "anthropic")

CLIENTS: dict[str, dict[str, Any]] = {
    "": {"max_retries": 0, "timeout": 300},
    "-patient": {"max_retries": 2, "timeout": 300},
    "-hasty": {"max_retries": 0, "timeout": 2},
    "-late": {"max_retries": 0, "timeout": 300},
}
"""How the clients are made, by what the names of their agents end in; the late one's provider is
not there from the beginning."""


@dataclass
class World:
    """The world outside of one run.

    Attributes:
        then: what its provider is told to do while the run charges.
    """

    provider: str
    charges: str
    then: list[dict[str, Any]]


def make() -> Durably:
    """The application; its ledger is DURABLY_URL's."""
    where: dict[str, str] = json.loads(os.environ["WIRE"])

    def world(run: RunInfo) -> World:
        return World(where["provider"], where["charges"], run.args.get("then", []))

    app = Durably()
    for ending, options in CLIENTS.items():
        url = where["late" if ending == "-late" else "provider"]
        for protocol, model in models(url, **options):
            agent = Agent(
                model,
                name=f"{protocol}{ending}",
                deps_type=World,
                tools=[],
            )
            agent.tool(metadata=effects.READ)(find_order)
            agent.tool(metadata=effects.once(on_doubt="ask"))(charge)
            app.register(agent, deps=world, retry=NOW)
    return app


def models(url: str, **options: Any) -> Iterator[tuple[str, Model]]:
    """A model for each protocol."""
    openai = AsyncOpenAI(base_url=f"{url}/v1", api_key="any", **options)
    anthropic = AsyncAnthropic(base_url=f"{url}/anthropic", api_key="any", **options)
    yield "chat", OpenAIChatModel("gpt-5-mini", provider=OpenAIProvider(openai_client=openai))
    yield (
        "responses",
        OpenAIResponsesModel("gpt-5-mini", provider=OpenAIProvider(openai_client=openai)),
    )
    provider = AnthropicProvider(anthropic_client=anthropic)
    yield "anthropic", AnthropicModel("claude-sonnet-5", provider=provider)


def find_order(ctx: RunContext[World], number: int) -> str:
    """Say what is in an order."""
    return f"order {number}: two lamps"


def charge(ctx: RunContext[World], number: int, note: str = "") -> str:
    """Charge an order to its customer."""
    call = current_call()
    line = json.dumps({"run": call.run_key, "key": call.idempotency_key, "note": note}) + "\n"
    file = os.open(ctx.deps.charges, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
        os.fsync(file)
    finally:
        os.close(file)
    script(ctx.deps.provider, *ctx.deps.then)
    return "charged"
