"""Workers: registration, heartbeats, what they hold."""

from __future__ import annotations

import json
from datetime import timedelta

from durably.ledger.columns import timestamp
from durably.ledger.operations import Operation, execute, fetch
from durably.ledger.rows import held_from
from durably.ledger.stepping import Pace, Reading, read_time
from durably.records import HeldRun


def register(
    worker_id: str, name: str, pid: int, queues: dict[str, int], lease_seconds: float
) -> Operation[None]:
    """Make a worker known, and alive for one lease; also its heartbeat.

    One row a worker, not one a run: its cost does not grow with the runs. A worker that was
    forgotten while it was frozen is known again; its runs have been given to others by then.
    """
    yield from execute(
        "register_worker",
        id=worker_id,
        name=name,
        pid=pid,
        queues=json.dumps(queues),
        lease_seconds=lease_seconds,
    )


def beat(
    worker_id: str, name: str, pid: int, queues: dict[str, int], lease_seconds: float, pace: Pace
) -> Operation[tuple[Reading, float]]:
    """`register`, and heed that the ledger's clock was set; returns its time, and by how much.

    Leases are moments of that clock. Set forward, it would end those of healthy workers; set back,
    it would have dead ones live on. So whoever notices first gives every worker that was alive a
    moment before, or says that it will be, one lease from now.
    """
    reading = yield from read_time(pace.clock)
    step = pace.step(reading)
    if step or pace.last is None:
        before = timestamp(reading.at - timedelta(seconds=step)) if step else None
        yield from execute("lease_anew", alive_at=before)
    yield from register(worker_id, name, pid, queues, lease_seconds)
    return reading, step


def held_runs(worker_id: str) -> Operation[list[HeldRun]]:
    """The runs that a worker executes, and which of them were asked to stop."""
    rows = yield from fetch("held_runs", worker_id=worker_id)
    return [held_from(row) for row in rows]


def remove(worker_id: str) -> Operation[None]:
    """Forget a worker that ended well."""
    yield from execute("remove_worker", id=worker_id)


def prune(older_than_seconds: float) -> Operation[None]:
    """Forget workers whose lease ended longer ago."""
    yield from execute("prune_workers", older_than_seconds=older_than_seconds)
