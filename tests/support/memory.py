"""Owns where temporary files of tests go; leaves what is in them to the tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

ROOM = 4_000_000_000
"""Bytes that must be free in memory for the tests' files to go there."""


def use_memory() -> None:
    """Have temporary files in memory where there is room: a third of the time is waiting for disks.

    Nothing is proved less: every commit still waits for its fsync, and a file outlives a process
    that is killed as it does on a disk. Losing power is what no test can do.
    """
    memory = Path("/dev/shm")
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK | os.X_OK):
        return
    if shutil.disk_usage(memory).free > ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(memory)
