"""The runs whose cost is kept: what the agent of each does.

Owns the scenarios; leaves taking a run from its start to its end to `costs.measuring`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_ai import Agent

from durably import current_call, effects
from durably.testing import ScriptedModel, call

STEPS = 2
"""Model requests that ask for the tool: the second is what one more step costs."""


def work() -> str:
    """A tool that does nothing to the ledger's database."""
    return "done"


def book() -> str:
    """A tool whose own table is in the ledger's database."""
    with current_call().transaction() as connection:
        connection.execute("INSERT INTO books VALUES (1)")
    return "booked"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A run.

    Attributes:
        policy: what its tool declares; None: it has none, and calls none.
        steps: how many model requests ask for the tool.
        approvals: how many of them have to be approved.
    """

    name: str
    policy: dict[str, Any] | None = None
    tool: Callable[[], str] = work
    steps: int = STEPS
    approvals: int = 0

    def agent(self) -> Agent[None, str]:
        if self.policy is None:
            return Agent(ScriptedModel("done"), name="plain")
        asks = [call(self.tool.__name__)] * self.steps
        agent = Agent(ScriptedModel(*asks, "done"), name="worker")
        agent.tool_plain(metadata=self.policy)(self.tool)
        return agent


SCENARIOS = [
    Scenario("plain"),
    Scenario("read", effects.READ),
    Scenario("idempotent", effects.IDEMPOTENT),
    Scenario("once", effects.once()),
    Scenario("transactional", effects.TRANSACTIONAL, book),
    Scenario("approved", effects.once(approve=True), steps=1, approvals=1),
]
