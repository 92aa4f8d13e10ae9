"""Named moments at which a crash could fall: around each commit, model request, tool and settle.

Owns the names, what they mean, and who is told; nothing happens at a boundary unless a test has
somebody told (see `durably.testing.crash_at`).
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Literal, get_args

from durably.errors import ConfigError

type Observer = Callable[[str], None]

Boundary = Literal[
    "model:before",
    "model:after",
    "checkpoint:before",
    "checkpoint:after",
    "intent:before",
    "intent:after",
    "tool:before",
    "tool:after",
    "step:before",
    "step:after",
    "outcome:before",
    "outcome:after",
    "transaction:before_commit",
    "transaction:after_commit",
    "wait:before",
    "wait:after",
    "child:before",
    "child:after",
    "output:before",
    "output:after",
    "delta:before",
    "delta:after",
    "settle:before",
    "settle:after",
    "end:before",
    "end:released",
    "end:parent_told",
    "end:child_told",
    "end:after",
    "commit:before",
    "commit:after",
    "signal:before",
    "signal:after",
    "decision:before",
    "decision:after",
    "expiry:before",
    "expiry:after",
    "notice:told",
    "job:before",
    "job:after",
    "transfer:marked",
    "transfer:begun",
    "transfer:emptied",
    "transfer:batch:before",
    "transfer:batch:after",
    "transfer:verified",
    "transfer:opening",
    "transfer:finished",
]
"""Every name, for type checkers."""

_MEANINGS: dict[Boundary, str] = {
    "model:before": "the model is about to be asked",
    "model:after": "the model has answered; nothing of the answer is saved",
    "checkpoint:before": "a response, or what it rests on, is about to be saved",
    "checkpoint:after": "it is saved",
    "intent:before": "the intent of a ONCE call is about to be saved",
    "intent:after": "it is saved; the tool has not begun",
    "tool:before": "a tool is about to run",
    "tool:after": "a tool has returned; its result is not saved",
    "step:before": "a `durably.step` inside a tool is about to run",
    "step:after": "it has returned; its result is not saved",
    "outcome:before": "the outcome of a call is about to be saved in a write of its own",
    "outcome:after": "it is saved",
    "transaction:before_commit": "a TRANSACTIONAL tool's writes and result are about to commit",
    "transaction:after_commit": "they are committed",
    "wait:before": "a wait for a time or a signal is about to be saved",
    "wait:after": "it is saved",
    "child:before": "a child run is about to be started",
    "child:after": "it is started, and waited for",
    "output:before": "an output function is about to run",
    "output:after": "it has returned; its output is not saved",
    "delta:before": "a piece of a message in the making is about to be shown",
    "delta:after": "it is shown",
    "settle:before": "the transition that ends the attempt is about to be written",
    "settle:after": "it is written",
    "end:before": "a run has ended; nobody who waits for it was told",
    "end:released": "the next run of its thread may go",
    "end:parent_told": "its parent run was told",
    "end:child_told": "a child that must not outlive it was cancelled",
    "end:after": "everybody was told",
    "commit:before": "the ledger is about to commit a write, of whatever kind",
    "commit:after": "it is committed; who waits for it has not heard so",
    "signal:before": "a signal is about to be stored, by whoever sends it",
    "signal:after": "it is stored",
    "decision:before": "somebody's decision is about to be stored",
    "decision:after": "it is stored",
    "expiry:before": "a time limit or timer that is over is about to have its effect",
    "expiry:after": "it has had it",
    "notice:told": "hooks were called for something that waits; that they were is not saved",
    "job:before": "Oban has started a job; its run is not claimed",
    "job:after": "the attempt is over; Oban has not heard so",
    "transfer:marked": "`durably transfer` has marked the source; the target is not committed",
    "transfer:begun": "the target is kept for the transfer",
    "transfer:emptied": "a transfer was given up, the target emptied; the source is still marked",
    "transfer:batch:before": "a batch of rows is about to be committed in the target",
    "transfer:batch:after": "it is committed",
    "transfer:verified": "both ledgers were compared",
    "transfer:opening": "the source says that the target may be open; it is not yet",
    "transfer:finished": "the target is open; the source does not say so yet",
}

NAMES: Mapping[Boundary, str] = MappingProxyType(_MEANINGS)
"""Every boundary that durably reaches, and what is true there."""

assert get_args(Boundary) == tuple(NAMES), "the type and the meanings name the same"


class Died(BaseException):
    """Raised by an observer in place of killing the process: not an ``Exception``, so that code
    which handles errors does not take it for one.
    """


_defined: dict[str, str] = {}
_observers: tuple[Observer, ...] = ()
_about = threading.local()
_lock = threading.Lock()


def reached(name: str, tool: str | None = None) -> None:
    """Tell the observers, if there are any, that the code is at boundary ``name``.

    Args:
        tool: which tool's call it is about, if it is about one.
    """
    if _observers:
        _about.tool = tool
        try:
            for observer in _observers:
                observer(name)
        finally:
            _about.tool = None


def observe(observer: Observer | None) -> None:
    """Install the only observer (None removes all). It may kill the process: that is its use."""
    global _observers
    with _lock:
        _observers = () if observer is None else (observer,)


@contextmanager
def observing(observer: Observer) -> Generator[None]:
    """Tell one more observer within the block."""
    global _observers
    with _lock:
        _observers = (*_observers, observer)
    try:
        yield
    finally:
        with _lock:
            _observers = tuple(each for each in _observers if each is not observer)


def tool() -> str | None:
    """For observers: which tool's call the boundary is about; None if it is about none."""
    return getattr(_about, "tool", None)


def define(name: str, meaning: str) -> None:
    """Make a boundary of the application's own known: it calls ``reached(name)`` at one.

    Raises:
        ConfigError: durably has one of that name.
    """
    if name in NAMES:
        raise ConfigError(f"{name!r} is a boundary of durably's own: choose another name.")
    _defined[name] = meaning


def check(name: str) -> None:
    """Refuse a name that nobody would ever reach.

    Raises:
        ConfigError: there is no such boundary; the message says what it may have meant.
    """
    known = [*NAMES, *_defined]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3) or known
        raise ConfigError(
            f"There is no boundary {name!r}; there is {', '.join(map(repr, close))}. "
            "durably.boundaries.NAMES has them all."
        )
