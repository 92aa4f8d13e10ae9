"""Who is to be told in this process that something was committed.

Owns the list; hearing of commits is the drivers'.
"""

from __future__ import annotations

import logging
from typing import Protocol

from durably.ledger.database import Listener

log = logging.getLogger(__name__)


class Committed(Protocol):
    """Who is told of each commit, and whether it was nothing but progress."""

    def __call__(self, *, progress: bool) -> None: ...


class Listeners:
    """They come and go under a lock of the driver's; they are told in any thread."""

    def __init__(self) -> None:
        self._all: tuple[Listener, ...] = ()
        self._of_progress: tuple[Listener, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, listener: Listener, *, progress: bool) -> None:
        """Tell this one from now on, of progress as well if it asks for it (`Database.subscribe`).

        One that is there already is told as often as it was added.
        """
        self._all = (*self._all, listener)
        if progress:
            self._of_progress = (*self._of_progress, listener)

    def remove(self, listener: Listener, *, progress: bool) -> None:
        """Tell it no more; said as it was added."""
        self._all = _without(self._all, listener)
        if progress:
            self._of_progress = _without(self._of_progress, listener)

    def tell(self, *, progress: bool = False) -> None:
        """Tell all whom it concerns.

        Args:
            progress: that nothing but progress was committed.
        """
        for listener in self._of_progress if progress else self._all:
            try:
                listener()
            except Exception:
                # Its event loop may have closed. The caller is a writer's thread: it goes on.
                log.exception("a listener could not be told of a commit")


def _without(listeners: tuple[Listener, ...], gone: Listener) -> tuple[Listener, ...]:
    remaining = list(listeners)
    remaining.remove(gone)
    return tuple(remaining)
