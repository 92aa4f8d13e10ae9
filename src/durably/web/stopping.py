"""Knows that the server is about to stop, so that streams end and it does not wait for them.

Owns hearing of it, by the signals that servers are stopped with; what they do then is theirs.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from durably.app import Durably

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_stopping: WeakKeyDictionary[Durably, asyncio.Event] = WeakKeyDictionary()


def stopping(app: Durably) -> asyncio.Event:
    """Set once the server that serves this application is about to stop."""
    return _stopping.setdefault(app, asyncio.Event())


@contextmanager
def hearing_of_stop(app: Durably) -> Generator[None]:
    """Set `stopping` when the process is told to end, or this block ends."""
    event = _stopping[app] = asyncio.Event()
    loop = asyncio.get_running_loop()
    with _also_on_signals(lambda: loop.call_soon_threadsafe(event.set)):
        try:
            yield
        finally:
            event.set()


@contextmanager
def _also_on_signals(tell: Callable[[], object]) -> Generator[None]:
    """Tell of a signal, before whoever handles it (the server) does so."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets no other thread hear of signals.
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def told(number: int, frame: FrameType | None) -> None:
        tell()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif handler is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in SIGNALS:
        signal.signal(number, told)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is told and handler is not None:
                signal.signal(number, handler)
