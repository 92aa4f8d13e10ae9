"""The kernel's word that a file was written to, on Linux (inotify); elsewhere there is none.

Owns the descriptor; that nothing depends on its being there is its caller's doing.
"""

from __future__ import annotations

import ctypes
import os
import select
import time
from pathlib import Path

_MODIFIED = 0x2
"""IN_MODIFY, of inotify(7)."""


class Nudges:
    """Waits for writes to a file; without the kernel's help, only for time to pass."""

    def __init__(self, path: Path) -> None:
        self._descriptor = _watch(path)
        self._poll = None
        if self._descriptor is not None:
            self._poll = select.poll()
            self._poll.register(self._descriptor, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Wait for a write, but no longer than this; True if there was one since the last wait."""
        if self._descriptor is None or self._poll is None:
            time.sleep(seconds)
            return False
        if not self._poll.poll(1000 * seconds):
            return False
        os.read(self._descriptor, 65_536)  # What they say, of one file, is that they are there.
        return True

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _watch(path: Path) -> int | None:
    """A descriptor that can be read once the file is written to; None if there is none to be had.

    As where the user has as many as the system allows.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        return None
    descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(path), _MODIFIED) < 0:
        os.close(descriptor)
        return None
    return descriptor
