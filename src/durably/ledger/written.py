"""What an attempt writes, as data: calls and their outcomes, messages, steps. Pure.

Owns what belongs together in one write; writing it under the fence is `steps`'.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from durably.ledger.budgets import Sharing
from durably.lifecycle import EffectState
from durably.records import CallPosition, Steer

clock = time.monotonic
"""What `CallOutcome` counts by; seconds."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call about to be recorded, and under which policy."""

    position: CallPosition
    tool_name: str
    tool_call_id: str
    args: str
    policy: str
    on_doubt: str | None
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Ask:
    """What a person is asked about a call that waits for them.

    Attributes:
        kind: ``approval`` to run it, an ``answer`` in its place, or the answer to a ``question``.
        request: what they are shown, as JSON: the tool's schema, the question, its choices.
        within_seconds: how long they have; None: for ever.
        on_expiry: what happens then: ``deny``, ``escalate`` or ``wait``.
        escalate_queue: where the run goes on once it was escalated; None: where it is.
    """

    kind: str
    request: str = "{}"
    within_seconds: float | None = None
    on_expiry: str = "wait"
    escalate_queue: str | None = None


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What became of a tool call.

    Attributes:
        asked: True if a person is asked to settle it.
        ask: what they are asked, for a call that waits for them.
        result: the recorded result as JSON, for a settled call.
        began, ended: when the tool began and ended, by `clock`, if that is known better than that
            it is recorded now: an outcome may be kept until something else is written.
    """

    call: ToolCall
    state: EffectState
    result: str | None = None
    error: str | None = None
    asked: bool = False
    ask: Ask | None = None
    began: float | None = field(default=None, compare=False)
    ended: float | None = field(default=None, compare=False)

    def times(self) -> dict[str, float]:
        """When it began and ended, as the database counts it: seconds from now."""
        now = clock()
        return {
            "began_seconds": 0.0 if self.began is None else self.began - now,
            "ended_seconds": 0.0 if self.ended is None else self.ended - now,
        }


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to append.

    Attributes:
        steers: other runs' messages that the model has seen, once this one is written.
    """

    seq: int
    kind: str
    body: str
    steers: tuple[Steer, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """Everything that one write of an attempt makes durable together.

    Attributes:
        usage: usage of the run so far, as JSON; None: as it was.
        cost_nanousd: what it cost so far; None: as it was.
        sharing: the shared budgets that it spends from; None: there are none.
        fingerprint: the agent's fingerprint, if it was not recorded for this attempt yet.
        streams: True if messages in the making are shown: the attempt may have written deltas.
        model: the model that answered last; None: as it was.
    """

    usage: str | None = None
    messages: tuple[NewMessage, ...] = ()
    outcomes: tuple[CallOutcome, ...] = ()
    fingerprint: str | None = None
    events: tuple[tuple[str, dict[str, object]], ...] = field(default=())
    cost_nanousd: int | None = None
    sharing: Sharing | None = None
    streams: bool = False
    model: str | None = None

    @property
    def counts_alone(self) -> bool:
        """Whether it holds nothing but what the run has spent, from no shared budget."""
        return (
            self.sharing is None
            and self.fingerprint is None
            and not (self.messages or self.outcomes or self.events or self.streams)
        )
