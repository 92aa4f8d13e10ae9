"""Checkpoints and guard in one capability, where nothing of the agent's is between the two.

Owns only when they may be one: what they do is theirs. Pydantic-ai copies its run context for every
capability at every hook, dozens of times a step, whether the capability uses the hook or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering

from durably.agents.attempt import AttemptState
from durably.agents.checkpoints import Checkpoints
from durably.agents.guard import EffectGuard
from durably.agents.registry import AnyAgent


@dataclass
class Together(EffectGuard, Checkpoints):
    """Where the checkpoints are: inside whatever else is outermost, around everything else.

    Calls that wait are answered by the guard, which answers those that are asked about as well.
    """

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="outermost")


def around(agent: AnyAgent, state: AttemptState) -> list[AbstractCapability[Any]]:
    """What saves an agent's responses and guards its tools, as few capabilities as will do."""
    if all(_is_outermost(capability) for capability in agent.root_capability.capabilities):
        return [Together(state=state)]
    return [Checkpoints(state=state), EffectGuard(state=state)]


def _is_outermost(capability: AbstractCapability[Any]) -> bool:
    """Whether it comes before both, as those do that pydantic-ai itself gives to every agent."""
    ordering = capability.get_ordering()
    return ordering is not None and ordering.position == "outermost"
