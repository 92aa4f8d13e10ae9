"""Owns the servers of a test run that came to a sudden end: a process that outlives it and cleans
up; leaves those of other runs to `support.postgres`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

from support.postgres_server import clean, gone

TESTS = Path(__file__).parent.parent


def guard(folder: Path, pid: int) -> None:
    """Have a folder of servers cleaned up as soon as the process is gone, however it went."""
    began = psutil.Process(pid).create_time()
    subprocess.Popen(
        [sys.executable, "-m", __name__, folder, str(pid), repr(began)],
        cwd=TESTS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what ends the test run must not end it
    )


def _watch(folder: Path, pid: int, began: float) -> None:
    # A run that ends in order cleans up by itself.
    while folder.exists() and _alive(pid, began):
        time.sleep(0.5)
    clean(folder)


def _alive(pid: int, began: float) -> bool:
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return False
    return process.create_time() == began and not gone(process)


if __name__ == "__main__":
    _watch(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
