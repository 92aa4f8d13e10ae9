"""Named moments at which a crash could fall: around each commit, model request, tool and settle.

Owns only the names and an observer; nothing happens at a boundary unless a test installs one.
"""

from __future__ import annotations

from collections.abc import Callable

type Observer = Callable[[str], None]

_observer: Observer | None = None


def reached(name: str) -> None:
    """Tell the observer, if there is one, that the code is at boundary ``name``."""
    if _observer is not None:
        _observer(name)


def observe(observer: Observer | None) -> None:
    """Install the observer (None removes it). It may kill the process: that is its use."""
    global _observer
    _observer = observer
