"""Duties that look after one run after the other: what fails for one of them holds up no other.

Owns that it is said, once; who does the duty tries again at its next look.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from durably.errors import LedgerClosed, LedgerMoved, LedgerUnavailable

log = logging.getLogger(__name__)

SAID_AT_MOST = 1000
"""Of how many it is remembered that it was said."""

_said: dict[str, str] = {}


@contextmanager
def apart(what: str) -> Generator[None]:
    """While one run is looked after; a bug, or a row that nobody foresaw, is that run's only.

    Args:
        what: says in the log what could not be done.

    Raises:
        LedgerUnavailable, LedgerClosed, LedgerMoved: no run is to blame for that.
    """
    try:
        yield
    except (LedgerUnavailable, LedgerClosed, LedgerMoved):
        raise
    except Exception as error:
        if _said.get(what) == repr(error):
            return
        if len(_said) >= SAID_AT_MOST:
            _said.clear()
        _said[what] = repr(error)
        log.exception("%s could not be done, and is tried again", what)
    else:
        _said.pop(what, None)
