"""Executing under a test: until nothing is due any more, or each run as it is enqueued.

Owns what the test is told of failures; executing is the application's `Durably.drain`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from durably.app import Durably
from durably.execution.executor import FAILURES
from durably.run import Run
from durably.worker import DEFAULT_CONCURRENCY


@dataclass(frozen=True, slots=True)
class Drained:
    """What `drain` did.

    Attributes:
        attempts: how many attempts were made.
        failures: what those that failed raised, in the order in which they ended.
    """

    attempts: int
    failures: tuple[Exception, ...] = ()


async def drain(
    app: Durably, queues: Mapping[str, int] | None = None, *, raise_errors: bool = False
) -> Drained:
    """Execute in this process until nothing is due any more; a crashed worker's runs, too.

    What is due later is left alone: see `Clock.advance`.

    Args:
        queues: how many runs of each queue at once; default: every queue of the registered agents.
        raise_errors: raise what an attempt failed with, once nothing is due; several of them as an
            ``ExceptionGroup``. The runs are tried again all the same.
    """
    failures: list[Exception] = []
    token = FAILURES.set(failures)
    try:
        attempts = await app.drain(queues)
    finally:
        FAILURES.reset(token)
    if raise_errors and failures:
        raise failures[0] if len(failures) == 1 else ExceptionGroup("attempts failed", failures)
    return Drained(attempts, tuple(failures))


@asynccontextmanager
async def inline(app: Durably, *, raise_errors: bool = True) -> AsyncGenerator[Durably]:
    """Within the block, `Durably.enqueue` executes before it returns, to an end or suspension.

    So does whatever else is due. A run that begins later (``delay=``), or is enqueued in the
    caller's own transaction (``conn=``), is left for `drain`.

    Args:
        raise_errors: raise out of ``enqueue`` what an attempt failed with; False leaves it in the
            run, as in production.
    """

    async def execute(run: Run[Any]) -> None:
        queues = {**app.default_queues(), run.record.queue: DEFAULT_CONCURRENCY}
        await drain(app, queues, raise_errors=raise_errors)
        await run.refresh()

    before, app.after_enqueue = app.after_enqueue, execute
    try:
        yield app
    finally:
        app.after_enqueue = before
