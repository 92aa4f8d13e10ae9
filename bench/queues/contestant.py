"""What a job queue has to offer to be measured, as a protocol; each contestant is one module.

Owns the names and where each is found; how one is measured is the measuring modules'.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, cast

type Started = Callable[[], None]
"""What the body of each job, or the model of each run, calls as it begins."""


class Contestant(Protocol):
    """A job queue on one database, with a job that does nothing.

    Attributes:
        bulk: whether it has a way to store many at once.
    """

    bulk: bool

    async def enqueue(self) -> None:
        """Store one job, durably."""
        ...

    async def enqueue_many(self, count: int) -> None:
        """Store many, by the best way that there is: one by one, if it has no other."""
        ...

    def working(self, limit: int) -> AbstractAsyncContextManager[None]:
        """A worker in this process, with so many jobs at once."""
        ...


class Module(Protocol):
    """A module of `queues.contestants`."""

    def opened(self, url: str, started: Started) -> AbstractAsyncContextManager[Contestant]:
        """The contestant on an empty database of its own, whose tables it makes if need be."""
        ...


CONTESTANTS: dict[str, tuple[str, ...]] = {
    "durably": ("sqlite", "postgres"),
    "durably_asked": ("sqlite", "postgres"),
    "durably_bare": ("sqlite", "postgres"),
    "oban": ("postgres",),
    "oban_recorded": ("postgres",),
    "procrastinate": ("postgres",),
    "pgqueuer": ("postgres",),
    "dbos": ("sqlite", "postgres"),
    "absurd": ("postgres",),
}
"""Who is measured on which database.

``durably_asked`` is durably until the model is asked, which is measured of starting alone.
``durably_bare`` is durably's queue and ledger, without an agent: a run is claimed, started and
completed, and pydantic-ai has no part in it. ``oban_recorded`` is an Oban job with a row
for its beginning and its end.
"""


def contestant(name: str, url: str, started: Started) -> AbstractAsyncContextManager[Contestant]:
    """Open a contestant.

    Raises:
        ImportError: it is not installed.
    """
    module = cast(Module, importlib.import_module(f"queues.contestants.{name}"))
    return module.opened(url, started)
