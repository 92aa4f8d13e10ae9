"""Runs and what belongs to them: attempts, messages, events. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from durably.lifecycle import AttemptOutcome, RunState
from durably.records.calls import Effect

type Json = dict[str, Json] | list[Json] | str | int | float | bool | None


class Claim(NamedTuple):
    """The right to write a run: which attempt of it, by which worker."""

    run_id: int
    attempt: int
    worker_id: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One agent invocation from enqueue to a final state.

    Attributes:
        attempt: how often it was claimed; the fencing token of the current attempt.
        failures: failed attempts; what ``max_attempts`` limits.
        crashes: attempts whose worker died; counted apart, limited alike.
        waiting_on: for a suspended run: what it waits for; None otherwise.
        thread: the conversation that it is a part of; None: it stands alone.
        parent_id: the run whose tool started it; None: no run did.
        budget: its own limits, as it was enqueued with or given since; None: its agent's.
        cost_nanousd: what its responses cost so far, in billionths of a US dollar, as far as
            prices are known.
        usage: tokens, requests and tool calls so far, over all attempts.
        stream: whether its messages are shown while they are made; None: as its agent says.
        tells_end: True while somebody must still learn how it ended: a parent, children, a thread.
        error: why the last attempt failed, or why the run was discarded.
        model: the last model that answered, such as ``openai:gpt-5``; None: none has.
        tokens, own_nanousd: what its own responses took and cost so far. Its child runs have their
            own; ``usage`` and ``cost_nanousd`` count both.
        waited_ms: how long it was due before it was claimed first; None: it never was claimed.
        executed_ms: how long its attempts took altogether, of those that are over.
        damage: what of its row cannot be read, one sentence for each column.
        input: what it was asked, of a run that was claimed among others a moment ago; None: it was
            not read with the run.
    """

    id: int
    key: str
    agent: str
    queue: str
    state: RunState
    priority: int
    attempt: int
    failures: int
    crashes: int
    max_attempts: int
    tags: list[str]
    meta: dict[str, Any]
    usage: dict[str, Any]
    waiting_on: dict[str, Any] | None
    output: str | None
    error: str | None
    worker_id: str | None
    cancel_requested_at: datetime | None
    scheduled_at: datetime
    inserted_at: datetime
    attempted_at: datetime | None
    finished_at: datetime | None
    thread: str | None = None
    parent_id: int | None = None
    tells_end: bool = False
    budget: dict[str, Any] | None = None
    cost_nanousd: int = 0
    stream: bool | None = None
    model: str | None = None
    tokens: int = 0
    own_nanousd: int = 0
    waited_ms: int | None = None
    executed_ms: int = 0
    damage: tuple[str, ...] = ()
    input: RunInput | None = field(default=None, compare=False, repr=False)

    @property
    def in_line(self) -> bool:
        """True while it waits for other runs of its thread: nobody has to decide anything."""
        return (self.waiting_on or {}).get("kind") in LINE_KINDS

    @property
    def claim(self) -> Claim:
        """The claim of the attempt that this record shows."""
        return Claim(self.id, self.attempt, self.worker_id or "")


ON_BUSY = ("queue", "reject", "interrupt", "steer")
"""What a new run may do while another of its thread is going."""


LINE_KINDS = ("thread", "interrupt", "steer", "steered")
"""How a run waits in its thread: for its turn; the same, and the run that is going has yet to be
cancelled for it; to be seen by the run that is going; for the end of the run that has seen it."""


@dataclass(frozen=True, slots=True)
class RunInput:
    """What a run was asked: the prompt as JSON (see ``agents.codec``), the deps factory's args."""

    prompt: str
    args: dict[str, Any]
    damage: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run about to be inserted.

    Attributes:
        delay_seconds: how long until it is due, counted on the database's clock.
        scheduled_at: when it is due, as the ledger's own timestamp text; wins over the delay.
        fingerprint: what makes it a twin of another run, for ``unique_seconds``.
        on_busy: one of `ON_BUSY`, for a run with a thread.
        stream: whether its messages are shown while they are made; None: as its agent says.
    """

    key: str
    agent: str
    prompt: str
    queue: str = "agents"
    priority: int = 0
    max_attempts: int = 5
    args: str = "{}"
    tags: str = "[]"
    meta: str = "{}"
    delay_seconds: float = 0.0
    scheduled_at: str | None = None
    fingerprint: str | None = None
    unique_seconds: float | None = None
    thread: str | None = None
    parent_id: int | None = None
    budget: str | None = None
    on_busy: str = "queue"
    stream: bool | None = None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message of a history: a row, never rewritten.

    Attributes:
        body: Pydantic AI's JSON of the message, without fields that hold their default.
    """

    seq: int
    kind: str
    attempt: int
    body: str
    inserted_at: datetime


class Steer(NamedTuple):
    """A message for the run of its thread that is going; itself a run, with a prompt as JSON."""

    run_id: int
    key: str
    prompt: str


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """What a run of a thread left for those after it.

    Attributes:
        effects: of its last response, if the run did not complete: its calls may have no answers.
        prompt: what it was asked, as JSON, if it began and has no message; None otherwise.
    """

    key: str
    state: RunState
    inserted_at: datetime
    messages: list[StoredMessage]
    effects: list[Effect]
    prompt: str | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try by one worker; ``traceback`` is the full text, for whoever mends it."""

    run_id: int
    attempt: int
    worker_id: str
    started_at: datetime
    ended_at: datetime | None
    outcome: AttemptOutcome | None
    error: str | None
    traceback: str | None
    fingerprint: str | None
    damage: tuple[str, ...] = ()

    @property
    def crashed(self) -> bool:
        """True if its worker died, or was not heard of for too long."""
        return self.outcome is AttemptOutcome.LOST


@dataclass(frozen=True, slots=True)
class Event:
    """A fact about a run, for watchers; ``id`` is the cursor.

    Append-only, but for those of kind ``delta``: pieces of a message in the making (see
    `durably.live`), which go when the message comes, or is withdrawn.
    """

    id: int
    run_key: str
    kind: str
    attempt: int
    data: dict[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run's responses cost in US dollars, and how many of them have no known price."""

    usd: Decimal
    unpriced: int


class HeldRun(NamedTuple):
    """A run that the ledger says a worker holds, and whether it was asked to stop."""

    run_id: int
    attempt: int
    cancel_requested: bool
