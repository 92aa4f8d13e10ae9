"""What the capabilities of one attempt share: where pydantic-ai's history and the ledger's meet.

Owns what is waited for, all together; the runner makes it, checkpoints and guard keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelRequestPart, ModelResponse, UserPromptPart
from pydantic_ai.tools import ToolDefinition

from durably.agents.fingerprint import Fingerprints
from durably.agents.positions import (
    after_responses,
    count_responses,
    request_parts,
    without_parts,
)
from durably.agents.registry import OnChange, Registry
from durably.agents.spending import Spending
from durably.effects import DEFAULT, EffectPolicy
from durably.execution.journal import Journal
from durably.execution.outcome import Suspended
from durably.records import NewRun, Steer

type NewChild = Callable[[str, Any, str, Mapping[str, Any]], NewRun]
"""Makes the run of a child: agent name, prompt, default key, `durably.run_child`'s options."""


@dataclass
class AttemptState:
    """What the two capabilities of one attempt share.

    Attributes:
        replay: the last checkpointed response, until it has been handed back.
        known_responses: how many responses of pydantic-ai's history are in the ledger.
        last_known: where the last of them stood in it, and which that is.
        saved_requests: how many requests after the last of these are there too.
        stand_ins: names of tools that exist only so that their recorded calls find an answer.
        foreign: parts of requests after the last of these that are an earlier run's of the thread.
        steers: messages of the thread that the model is shown, and what it is shown of them, until
            they are saved with the response that they led to.
        spending: what the run has spent, and may.
        registry: the agents that a tool may have run as children.
        fingerprints: takes the agent's.
        new_child: makes the run of one, from the agent's name, the prompt, a key, and options.
        default_effect: the policy of tools that declare none.
        asked: call ids of the ledger that people are asked about, by tool call id.
        waits: what else is waited for inside a call, by tool call id (see ``agents.inside``).
        undecided: calls that wait for a person before they run, by call id of the ledger.
        tools: what the model is offered, by name.
        asking: True while the model makes a response.
        shown: the position of the response that is shown while it is made; None: of none yet.
    """

    journal: Journal
    on_change: OnChange
    replay: ModelResponse | None
    known_responses: int
    response_seq: int
    spending: Spending
    registry: Registry
    new_child: NewChild
    fingerprints: Fingerprints
    last_known: tuple[int, ModelResponse | None] = (0, None)
    saved_requests: int = 0
    foreign: Sequence[ModelRequestPart] = ()
    steers: list[tuple[Steer, UserPromptPart]] = field(
        default_factory=list[tuple[Steer, UserPromptPart]]
    )
    default_effect: EffectPolicy = DEFAULT
    stand_ins: set[str] = field(default_factory=set[str])
    asked: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    waits: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, list[dict[str, Any]]])
    undecided: list[str] = field(default_factory=list[str])
    tools: dict[str, ToolDefinition] = field(default_factory=dict[str, ToolDefinition])
    asking: bool = False
    shown: int | None = None

    def unsaved(self, messages: Sequence[ModelMessage]) -> list[ModelMessage]:
        """What of pydantic-ai's history is this run's and not in the ledger."""
        return without_parts(self.news(messages)[self.saved_requests :], self.foreign)

    def news(self, messages: Sequence[ModelMessage]) -> list[ModelMessage]:
        """What comes after the responses that are in the ledger.

        Looked for only behind the last of them while that is where it was: the history before may
        be of any length.
        """
        place, response = self.last_known
        if place < len(messages) and messages[place] is response:
            return list(messages[place + 1 :])
        return after_responses(messages, self.known_responses)

    def know(self, messages: Sequence[ModelMessage], response: ModelResponse) -> None:
        """A response is in the ledger that pydantic-ai is about to append to these messages."""
        place, last = self.last_known
        if place < len(messages) and messages[place] is last:
            self.known_responses += count_responses(messages[place + 1 :]) + 1
        else:
            self.known_responses = count_responses(messages) + 1
        self.last_known = len(messages), response

    def seen_in(self, messages: Sequence[ModelMessage]) -> list[Steer]:
        """The messages of the thread that are among these."""
        parts = request_parts(messages)
        return [steer for steer, shown in self.steers if shown in parts]

    @property
    def waiting(self) -> bool:
        """True once some call of the last response cannot be answered in this attempt."""
        return bool(self.asked or self.waits or self.undecided)

    def suspension(self) -> Suspended:
        """How the attempt ends that waits: for people, or only for something else."""
        asked = sorted([*self.undecided, *(i for ids in self.asked.values() for i in ids)])
        waits = [wait for found in self.waits.values() for wait in found]
        on: dict[str, object] = {}
        if asked:
            on["effects"] = asked
        if waits:
            on["waits"] = waits
        return Suspended("effects" if asked else "waits", on)
