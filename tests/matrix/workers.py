"""What the tests of the matrix want of one worker with many runs: to come to their ends, and leave.

Owns waiting for that; which runs there are, and how they must end, is the tests'.
"""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.process import BaseProcess

from crash.processes import ended, eventually, is_alive
from crash.undisturbed import logs
from crash.world import World

OPEN_RUNS = (
    "SELECT key FROM durably_runs "
    "WHERE state IN ('scheduled', 'available', 'executing', 'retryable')"
)
"""Those that a worker still has something to do for."""


def until_nothing_is_open(world: World, process: BaseProcess) -> None:
    """Wait until every run has ended, or waits; the worker must not end meanwhile."""

    def look() -> bool:
        done = not world.database.rows(OPEN_RUNS)
        assert is_alive(process), logs(world.folder)
        time.sleep(0.1)
        return done

    eventually("every run has ended or waits", look, seconds=900)


def leave(process: BaseProcess) -> None:
    """Tell a worker to leave, as a deploy does, and see that it leaves in order."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    assert ended(process) == 0
