"""Workers, queues, and what an examination finds. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


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
