"""Whether event loops run what is brief on a SQLite file: not for some time after it took long.

Owns how long that is; what is run there, and where else, is `writer`'s and `reader`'s.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

SLOW_SECONDS = 0.05
"""If something took an event loop longer than this, threads do all of it for some time."""

THREAD_SECONDS = 5.0
"""How long that is."""


class OnLoops:
    """What event loops may do, and how long it took them.

    Args:
        ever: False leaves all to threads.
    """

    def __init__(self, *, ever: bool = True) -> None:
        self._ever = ever
        self._slow_until = 0.0

    @property
    def allowed(self) -> bool:
        """Whether they may run what is brief now."""
        return self._ever and time.monotonic() >= self._slow_until

    @contextmanager
    def timed(self) -> Generator[None]:
        """What an event loop does in one go."""
        began = time.monotonic()
        try:
            yield
        finally:
            ended = time.monotonic()
            if ended - began > SLOW_SECONDS:
                self._slow_until = ended + THREAD_SECONDS
