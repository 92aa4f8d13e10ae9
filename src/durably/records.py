"""What the ledger knows, as frozen records: Run, Attempt, Effect, Event, Worker.

Pure data; the ledger makes them from rows, everything above reads them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from durably.lifecycle import AttemptOutcome, EffectState, RunState

type Json = dict[str, Json] | list[Json] | str | int | float | bool | None


class Claim(NamedTuple):
    """The right to write a run: which attempt of it, by which worker."""

    run_id: int
    attempt: int
    worker_id: str


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
        tells_end: True while somebody must still learn how it ended: a parent, children, a thread.
        error: why the last attempt failed, or why the run was discarded.
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


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run about to be inserted.

    Attributes:
        delay_seconds: how long until it is due, counted on the database's clock.
        scheduled_at: when it is due, as the ledger's own timestamp text; wins over the delay.
        fingerprint: what makes it a twin of another run, for ``unique_seconds``.
        on_busy: one of `ON_BUSY`, for a run with a thread.
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


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message of a history: a row, never rewritten."""

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

    @property
    def call_id(self) -> str:
        """The id that people and commands use, such as ``3.0``, or ``3.0/charge`` of a step."""
        return self.position.call_id


WAIT_KINDS = ("timer", "signal", "child")
"""What a tool may wait for that is no person."""

INBOX_KINDS = ("approval", "answer", "question", "doubt", "budget")
"""What a person may be asked: about a call, or for a budget."""


@dataclass(frozen=True, slots=True)
class InboxItem:
    """What waits for a person: an effect, whose run waits with it, or a run for its budget.

    Attributes:
        kind: what they are asked: ``approval``, ``answer``, ``question``, ``doubt`` or ``budget``.
        effect: the call that they are asked about; None where it is about the run.
        waiting: what the run waits for; of a budget: whose it is, what is used up, how much of it.
        since: when it began to wait.
        path: the keys of the runs above the run, outermost first, if another run started it.
    """

    run_key: str
    agent: str
    queue: str
    tags: list[str]
    effect: Effect | None
    waiting: dict[str, Any]
    since: datetime
    path: list[str] = field(default_factory=list[str])

    @property
    def kind(self) -> str:
        if self.effect is None:
            return str(self.waiting.get("kind", ""))
        return self.effect.ask or "doubt"


@dataclass(frozen=True, slots=True)
class Notice:
    """That people have to be told of something that waits: a row of the outbox.

    Attributes:
        position: the call that waits; None for the run itself.
        kind, attempt: which asking it is about; a call may be asked about again.
        reason: ``waiting``, or ``escalated`` once nobody has decided in time.
        tries: how often a worker took it up, with this time.
        taken_by: the names of the hooks that have been called with success.
    """

    id: int
    run_id: int
    position: CallPosition | None
    kind: str
    attempt: int
    reason: str
    made_at: datetime
    tries: int
    taken_by: tuple[str, ...]

    @property
    def call_id(self) -> str:
        """The call that it is about, such as ``3.0``; empty for the run itself."""
        return self.position.call_id if self.position else ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a hook of `Durably.on_waiting` is given: what waits for a person, and since when.

    Attributes:
        id: the same whenever this is sent again, and of nothing else.
        reason: ``waiting``, or ``escalated`` once nobody has decided in time.
        tries: 1 when it is sent for the first time; more after a failure, or a crash.
        kind: ``approval``, ``answer``, ``question`` or ``doubt`` of a call; ``change`` or
            ``budget`` of the run itself.
        path: the keys of the runs that started this one, outermost first, and its own.
        since: when it began to wait.
        at: when there was this to tell: then, or once it was escalated.
        request: what a person is shown: a tool's schema, the question, its choices.
        effect: the call; None for what is about the run itself.
    """

    id: str
    reason: str
    tries: int
    kind: str
    run_key: str
    agent: str
    queue: str
    tags: list[str]
    path: list[str]
    since: datetime
    at: datetime
    request: dict[str, Any]
    effect: Effect | None

    @property
    def call_id(self) -> str:
        """What ``run.approve`` and the others take, such as ``3.0``; empty for the run itself."""
        return self.effect.call_id if self.effect else ""

    @property
    def tool_name(self) -> str:
        """The tool that is called; empty for the run itself."""
        return self.effect.tool_name if self.effect else ""

    @property
    def args(self) -> Any:
        """The call's arguments, as the model gave them; None for the run itself."""
        if self.effect is None:
            return None
        try:
            return json.loads(self.effect.args or "{}")
        except ValueError:
            return self.effect.args

    @property
    def question(self) -> str | None:
        """What the model asks; None if it asks nothing."""
        return self.request.get("question")

    @property
    def choices(self) -> list[str] | None:
        """What there is to choose from; None if it is no choice."""
        return self.request.get("choices")


@dataclass(frozen=True, slots=True)
class Decision:
    """Who decided what about a call, or about the run itself, when, and why; never changed.

    Attributes:
        position: the call; None for what was decided about the run.
        decision: ``approved``, ``denied``, ``answered``, ``resolved``, ``expired``, ``escalated``;
            of a run: ``raised``, its budget.
        args_before: the call's arguments as the model gave them, as JSON.
        args_after: as they were approved; None where nothing was.
    """

    run_id: int
    position: CallPosition | None
    decision: str
    by: str
    note: str
    args_before: str | None
    args_after: str | None
    at: datetime

    @property
    def call_id(self) -> str:
        """The call that it is about, such as ``3.0``; empty for what is about the run."""
        return self.position.call_id if self.position else ""


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


@dataclass(frozen=True, slots=True)
class Event:
    """An append-only fact about a run, for watchers; ``id`` is the cursor."""

    id: int
    run_key: str
    kind: str
    attempt: int
    data: dict[str, Any]
    at: datetime


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
class WorkerRecord:
    """A process that drains queues, and until when it counts as alive."""

    id: str
    name: str
    pid: int
    queues: dict[str, int]
    started_at: datetime
    heartbeat_at: datetime
    expires_at: datetime
    executing: int
    alive: bool


@dataclass(frozen=True, slots=True)
class QueueSetting:
    """What was decided for a queue at run time, for every worker.

    Attributes:
        paused: no attempt begins.
        limit: how many runs every worker executes at once; None: as many as each was started with.
    """

    queue: str
    paused: bool = False
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class QueueRecord:
    """A queue: how many runs are in which state, what was decided for it, who serves it.

    Attributes:
        paused: no attempt begins.
        limit: how many runs every worker executes at once; None: as many as each was started with.
        served_by: the live workers that serve it, by id, with the limit that each was started
            with.
    """

    queue: str
    counts: dict[str, int]
    paused: bool
    limit: int | None
    served_by: dict[str, int]


@dataclass(frozen=True, slots=True)
class DueRecord:
    """How many runs of a queue could be claimed now, and since when the oldest of them."""

    queue: str
    runs: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run's responses cost in US dollars, and how many of them have no known price."""

    usd: Decimal
    unpriced: int


class FindingStatus(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an examination of an installation looked at, and what it found."""

    subject: str
    status: FindingStatus
    text: str


class HeldRun(NamedTuple):
    """A run that the ledger says a worker holds, and whether it was asked to stop."""

    run_id: int
    attempt: int
    cancel_requested: bool
