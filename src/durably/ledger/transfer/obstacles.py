"""What is in the way of a move at either end, said in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from durably.records import WorkerRecord


def live_workers(workers: Sequence[WorkerRecord], where: object) -> list[str]:
    """One sentence if any worker is alive there: which, and how to stop it."""
    alive = [worker for worker in workers if worker.alive]
    if not alive:
        return []
    who = "A worker is" if len(alive) == 1 else f"{len(alive)} workers are"
    how = ", ".join(f"`kill -TERM {worker.pid}` on {worker.name}" for worker in alive)
    until = max(worker.expires_at for worker in alive)
    return [
        f"{who} alive on {where}: stop first what executes runs there, {how}; one that died "
        f"without a word counts as alive until {until:%H:%M:%S} UTC."
    ]
