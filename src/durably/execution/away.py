"""Saying that the database is away: once when it goes and once when it is back, not at every try.

Owns nothing but what is logged; trying again is the callers'.
"""

from __future__ import annotations

import logging


class Away:
    """What one duty has to say about it.

    Args:
        log: the duty's own logger.
        what: what cannot be done meanwhile.
    """

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._away = False

    def now(self, error: Exception) -> None:
        """It did not work."""
        level = logging.DEBUG if self._away else logging.WARNING
        self._log.log(level, "%s must wait: %s", self._what, error)
        self._away = True

    def over(self) -> None:
        """It worked."""
        if self._away:
            self._away = False
            self._log.info("%s can go on", self._what)
