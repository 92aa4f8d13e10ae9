"""What happens in the worker processes of a site."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from crash.children import begin, serve
from crash.world import World
from faults import shift


def worker(folder: Path, **options: Any) -> None:
    """A worker as it is deployed, until SIGTERM."""
    begin(folder, "worker")
    world = World(folder)
    asyncio.run(serve(world, shift.app(world), **options))
