"""What people are asked and told, and what they decided. Pure data."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from durably.records.calls import CallPosition, Effect

NO_CALL = CallPosition(-1, -1)
"""Stands for the run itself, among its calls."""

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
        path: the keys of the runs that started it, outermost first, and its own.
        worker: whose attempt made the call: of a call in doubt, the worker that died, or that could
            not say how it ended (``effect.error``).
        damage: what of its rows cannot be read, one sentence for each column.
    """

    run_key: str
    agent: str
    queue: str
    tags: list[str]
    effect: Effect | None
    waiting: dict[str, Any]
    since: datetime
    path: list[str] = field(default_factory=list[str])
    worker: str | None = None
    run_id: int = 0
    damage: tuple[str, ...] = ()

    @property
    def cursor(self) -> str:
        """Where it stands in the inbox: `Durably.inbox` goes on ``after`` it."""
        place = self.effect.position if self.effect else NO_CALL
        since = self.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
        return f"{since}|{self.run_id}|{place.call_id}"

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
        except (ValueError, RecursionError):
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
