"""What of pydantic-ai's history is new: found without looking at all of it, and found right."""

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import Agent
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering, ProcessHistory
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse
from pydantic_ai.models.test import TestModel

from durably.agents.attempt import AttemptState
from durably.agents.checkpoints import Checkpoints
from durably.agents.fingerprint import Fingerprints
from durably.agents.guard import EffectGuard
from durably.agents.positions import after_responses, count_responses
from durably.agents.together import Together, around


def fresh_state() -> AttemptState:
    nothing = cast("Any", None)
    return AttemptState(
        journal=nothing,
        on_change="continue",
        replay=None,
        known_responses=0,
        response_seq=-1,
        spending=nothing,
        registry=nothing,
        new_child=nothing,
        fingerprints=Fingerprints(),
    )


STEPS = st.lists(st.sampled_from(["step", "rejected", "requests", "shorten", "summarise"]))


@given(STEPS)
def test_the_news_of_a_history_are_those_after_the_responses_that_are_known(
    steps: list[str],
) -> None:
    """Whatever pydantic-ai and history processors do to the messages before them."""
    state, messages = fresh_state(), list[ModelMessage]()
    for step in steps:
        messages.append(ModelRequest(parts=[]))
        match step:
            case "rejected":  # Known to the ledger once the next request is made, not before.
                messages += [ModelResponse(parts=[]), ModelRequest(parts=[])]
            case "requests":
                messages.append(ModelRequest(parts=[]))
            case "shorten":
                del messages[: len(messages) // 2]
            case "summarise":
                messages[: len(messages) // 2] = [ModelRequest(parts=[])]
            case _:
                pass
        assert state.news(messages) == after_responses(messages, state.known_responses)
        response = ModelResponse(parts=[])
        state.know(messages, response)
        messages.append(response)
        assert state.known_responses == count_responses(messages)
        assert state.news(messages) == []


def unchanged(messages: list[ModelMessage]) -> list[ModelMessage]:
    return messages


class Outside(AbstractCapability[Any]):
    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="outermost")


class Between(AbstractCapability[Any]):
    pass


def capabilities_for(*own: AbstractCapability[Any]) -> list[type[Any]]:
    agent = Agent(TestModel(), name="a", capabilities=own)
    return [type(capability) for capability in around(agent, fresh_state())]


def test_checkpoints_and_guard_are_one_capability_unless_the_agent_has_some_between() -> None:
    assert capabilities_for() == [Together]
    assert capabilities_for(Outside()) == [Together]
    assert capabilities_for(Between()) == [Checkpoints, EffectGuard]
    assert capabilities_for(Outside(), Between()) == [Checkpoints, EffectGuard]
    assert capabilities_for(ProcessHistory(unchanged)) == [Checkpoints, EffectGuard]
