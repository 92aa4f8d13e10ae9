"""Workers, queues, and what an examination finds. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


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
class Action:
    """What somebody did through the API: a row of the audit trail, never changed.

    Attributes:
        by: who, as the caller said.
        action: ``approve``, ``deny``, ``answer``, ``resolve``, ``cancel``, ``retry``, ``signal``,
            ``raise_budget``, ``pause``, ``resume``, ``scale``, ``set_budget``, ``remove_budget``
            or ``prune``.
        run_key: the run that it was about; None: it was about none.
        subject: what else it was about: the call, such as ``3.0``, the signal's name, the queue,
            ``thread NAME`` or ``tag NAME``; empty for the run itself.
        data: what was said with it, such as a note, a reason, the new limit.
    """

    id: int
    at: datetime
    by: str
    action: str
    run_key: str | None
    subject: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReadyCheck:
    """One thing that must be so for a ledger to be worked on, and whether it is."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether runs are being executed: for probes.

    Attributes:
        checks: of the ``database``, its ``schema`` and its ``workers``; what comes after the first
            that fails was not looked at.
    """

    checks: tuple[ReadyCheck, ...]

    @property
    def ready(self) -> bool:
        """True if nothing is missing."""
        return all(check.ok for check in self.checks)


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
