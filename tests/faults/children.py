"""What happens in the worker processes of a site."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from crash.children import Strike, begin, die_at, freeze, serve
from crash.world import World
from durably import boundaries
from faults import shift


def worker(folder: Path, **options: Any) -> None:
    """A worker as it is deployed, until SIGTERM."""
    begin(folder, "worker")
    world = World(folder)
    asyncio.run(serve(world, shift.app(world), **options))


def frozen_while_writing(folder: Path, **options: Any) -> None:
    """A worker that stops itself in the middle of its first checkpoint, which holds its run."""
    checkpoints: list[str] = []

    def observe(name: str) -> None:
        if name == "checkpoint:before":
            checkpoints.append(name)
        writes = not threading.current_thread().name.startswith("durably-beat")
        if name == "commit:before" and writes and len(checkpoints) == 1:
            checkpoints.append("frozen")
            freeze()

    boundaries.observe(observe)
    worker(folder, **options)


def frozen_while_fetching(folder: Path, **options: Any) -> None:
    """A worker that stops itself while Oban has fetched its first jobs, and has not said so yet."""
    from oban import _query

    fetched: list[Any] = []

    class FreezingJob(_query.Job):
        def __init__(self, *args: Any, **fields: Any) -> None:
            super().__init__(*args, **fields)
            fetched.append(self)
            if len(fetched) == 1:
                freeze()

    _query.Job = FreezingJob
    worker(folder, **options)


def killed_at_work(folder: Path, **options: Any) -> None:
    """A worker that dies when it is about to call a tool for the twentieth time."""
    die_at(folder, Strike("tool:before", 20))
    worker(folder, **options)


def killed_before_the_claim(folder: Path, **options: Any) -> None:
    """A worker that dies with its first job in hand, before it has its run."""
    die_at(folder, Strike("job:before"))
    worker(folder, **options)


def killed_before_the_acknowledgement(folder: Path, **options: Any) -> None:
    """A worker that dies once its first run is over, before Oban knows that the job is."""
    die_at(folder, Strike("job:after"))
    worker(folder, **options)
