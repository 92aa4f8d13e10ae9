"""Tool calls, and the steps and waits inside them; signals. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from durably.lifecycle import EffectState


class CallPosition(NamedTuple):
    """Where in the run a tool call stands, or a step inside it: the identity of its effect.

    Tool call ids are not unique within a run (some providers start again at ``call_0`` in every
    response), so an effect is known by the position of its response and of the call in it.

    Attributes:
        step: the name of a step or wait that the tool's own code makes; empty for the call itself.
    """

    response: int
    call: int
    step: str = ""

    @property
    def call_id(self) -> str:
        """The id that people and commands use, such as ``3.0`` or, for a step, ``3.0/charge``."""
        return f"{self.response}.{self.call}{'/' if self.step else ''}{self.step}"

    @classmethod
    def from_id(cls, call_id: str) -> CallPosition:
        """Read what `call_id` wrote."""
        place, _, step = call_id.partition("/")
        response, _, call = place.partition(".")
        return cls(int(response), int(call), step)


@dataclass(frozen=True, slots=True)
class Effect:
    """One tool call in the ledger, or a step or wait inside it: intent, then outcome.

    Attributes:
        attempt: the attempt that wrote the intent (or the outcome, where no intent is recorded).
        policy: the policy it ran under, as text.
        asked: True while a person is asked to settle it.
        result: the recorded result as JSON (see ``agents.codec``); None until there is one.
        idempotency_key: stable across attempts; hand it to the service that the tool calls.
        ask: what a person is, or was, asked: ``approval``, ``answer``, ``question`` or ``doubt``;
            or what else it waits for: a ``timer``, a ``signal`` or a ``child``.
        awaits: the name of the signal, or the key of the child.
        request: what they are shown: the tool's schema, the question, its choices.
        approved: True once somebody let it run.
        expires_at: when nobody need decide any more; ``on_expiry`` says what happens then.
        escalate_queue: where its run goes on once it was escalated; None: where it is.
        damage: what of its row cannot be read, one sentence for each column.
    """

    run_id: int
    position: CallPosition
    tool_name: str
    tool_call_id: str
    args: str
    policy: str
    on_doubt: str | None
    state: EffectState
    asked: bool
    attempt: int
    idempotency_key: str
    result: str | None
    error: str | None
    resolved_by: str | None
    started_at: datetime
    finished_at: datetime | None
    ask: str | None
    request: dict[str, Any]
    approved: bool
    asked_at: datetime | None
    expires_at: datetime | None
    on_expiry: str | None
    awaits: str | None = None
    escalate_queue: str | None = None
    damage: tuple[str, ...] = ()

    @property
    def call_id(self) -> str:
        """The id that people and commands use, such as ``3.0``, or ``3.0/charge`` of a step."""
        return self.position.call_id

    @property
    def told(self) -> bool:
        """True of a call in doubt once the model was told that nobody knows its outcome."""
        return self.state is EffectState.IN_DOUBT and self.result is not None

    @property
    def of_wait(self) -> bool:
        """True of a call that waits, or waited, for a time, a signal or a run: for no person."""
        return self.ask in WAIT_KINDS


WAIT_KINDS = ("timer", "signal", "child")
"""What a tool may wait for that is no person."""


@dataclass(frozen=True, slots=True)
class Signal:
    """What was sent to a run while it was going.

    Attributes:
        payload: any JSON value.
        signal_id: by which the sender is recognised when it sends the same signal again.
        taken_by: the wait that was given it; None: none has been yet.
    """

    id: int
    run_id: int
    name: str
    payload: Any
    by: str
    signal_id: str | None
    sent_at: datetime
    taken_by: CallPosition | None
    damage: tuple[str, ...] = ()
