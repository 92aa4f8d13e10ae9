"""Workers and queues, as pages list them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from durably.lifecycle import RunState
from durably.records import QueueRecord, WorkerRecord


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker: ``executing`` of ``room`` runs, over all its queues."""

    worker: WorkerRecord
    room: int


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue.

    Attributes:
        due: runs that wait for a worker, or for a time.
        per_worker: how many runs each worker executes at once, as numbers or a range.
        workers: how many live workers serve it.
        nobody: runs wait, and no live worker serves it.
    """

    queue: QueueRecord
    due: int
    executing: int
    suspended: int
    per_worker: str
    workers: int
    nobody: bool


def workers_of(workers: Iterable[WorkerRecord]) -> list[WorkerRow]:
    """Workers, those alive first, and then by name."""
    rows = [WorkerRow(worker, sum(worker.queues.values())) for worker in workers]
    return sorted(rows, key=lambda row: (not row.worker.alive, row.worker.name, row.worker.id))


def queues_of(queues: Iterable[QueueRecord]) -> list[QueueRow]:
    """Queues, by name."""
    return [_row(queue) for queue in queues]


def _row(queue: QueueRecord) -> QueueRow:
    counts = queue.counts
    ready = counts.get(RunState.AVAILABLE, 0)
    due = ready + counts.get(RunState.SCHEDULED, 0) + counts.get(RunState.RETRYABLE, 0)
    limits = sorted(set(queue.served_by.values()))
    return QueueRow(
        queue=queue,
        due=due,
        executing=counts.get(RunState.EXECUTING, 0),
        suspended=counts.get(RunState.SUSPENDED, 0),
        per_worker=_range(limits) if queue.limit is None else str(queue.limit),
        workers=len(queue.served_by),
        nobody=ready > 0 and not queue.served_by,
    )


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "–"
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
