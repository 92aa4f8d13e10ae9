"""A lane whose simplest jobs are done from the event loop that asks for them, without a thread.

Owns which jobs these are, how many are sent at once, and what is left to the threads: all that
needs a transaction around it, that meets somebody else's lock, or in which anything fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg
from psycopg.pq.abc import PGresult

from durably import boundaries
from durably.ledger.lanes import MAX_BATCH, Job, Lane, job_here
from durably.ledger.listeners import Committed
from durably.ledger.operations import Operation, Statement
from durably.ledger.postgres.connection import LOST, translate
from durably.ledger.postgres.loop_pipeline import LoopPipeline
from durably.ledger.postgres.pipeline import Pipeline, Sendable
from durably.ledger.postgres.url import PostgresUrl

log = logging.getLogger(__name__)

BATCH_BYTES = 32 * 1024
"""How much is sent at once at most, but for a job that has more by itself: what a socket takes as a
whole, so that no server waits, with locks, for what a process that was frozen has not sent."""

LEAVING_SECONDS = 5.0
"""How long an event loop is waited for that does not go on, before its connection is given up."""


class _Asked(NamedTuple):
    """A job, its operation begun, and the statement that this asked for."""

    job: Job
    statement: Statement
    operation: Operation[Any]


class LoopLane:
    """Jobs of one statement each, over a connection in an event loop: the first loop that asks.

    What else there is, and all that other loops ask for, is done by threads (docs/decisions/0020).

    Args:
        threads: the lane that can do any job.
        committed: called after each commit, and told whether it was nothing but progress; None in
            a lane that only reads.
        ever: False leaves all to the threads.
    """

    def __init__(
        self,
        where: PostgresUrl,
        threads: Lane,
        committed: Committed | None = None,
        *,
        ever: bool = True,
    ) -> None:
        self.threads = threads
        self._where = where
        self._committed = committed
        self._ever = ever
        self._pipeline = LoopPipeline(
            where,
            self._answered,
            self._lost,
            adopted=self._adopted,
            opened=self._end_if_left,
        )
        self._waiting: deque[_Asked] = deque()
        self._sent: list[_Asked] = []
        self._turn: asyncio.Handle | None = None
        self._leaving: list[Callable[[], None]] = []

    async def run[T](
        self,
        operation: Callable[[], Operation[T]],
        subject: Hashable = None,
        *,
        brief: bool = False,
        progress: bool = False,
    ) -> T:
        """Have a job done, and wait for it; cancelled before it has begun, it is not done.

        Args:
            brief: whether it takes what `operations.brief` says.
            progress: whether it writes only what `operations.progress` says.
        """
        job, future = job_here(operation, subject, progress=progress)
        if not (brief and self._ever and self._take(job)):
            self.threads.put(job)
        return await future

    async def leave(self) -> None:
        """Leave all to the threads from now on; return once nothing is under way here."""
        self._ever = False
        loop, here = self._pipeline.loop, asyncio.get_running_loop()
        if loop is None or loop.is_closed():
            self._pipeline.close()
            return
        left = here.create_future()

        def tell() -> None:
            with suppress(RuntimeError):  # This loop waits no more, and was closed.
                here.call_soon_threadsafe(lambda: left.done() or left.set_result(None))

        with suppress(RuntimeError):  # That loop was closed this moment.
            loop.call_soon_threadsafe(self._leave, tell)
        # Nobody waits any more in a loop that does not go on.
        await asyncio.wait({left}, timeout=None if loop is here else LEAVING_SECONDS)

    # --- the connection

    def _adopted(self) -> None:
        """Nobody waits any more in the loop that was here before."""
        self._waiting.clear()
        self._sent.clear()
        self._turn = None

    def _lost(self, error: psycopg.Error) -> None:
        """What was sent may have been committed: who waits may know how to find out."""
        sent, self._sent = self._sent, []
        for asked in sent:
            if asked.job.future.done():
                continue
            if asked.statement.repeatable or self._committed is None:
                self.threads.put(asked.job)
            else:
                _tell(asked, error=translate(error, self._where.shown))
        while self._waiting:
            self.threads.put(self._waiting.popleft().job)
        self._end_if_left()

    def _leave(self, tell: Callable[[], None]) -> None:
        self._leaving.append(tell)
        self._end_if_left()

    def _end_if_left(self) -> None:
        if self._leaving and not (self._waiting or self._sent or self._pipeline.opening):
            self._pipeline.close()
            while self._leaving:
                self._leaving.pop()()

    @contextmanager
    def _or_lost(self) -> Generator[None]:
        """Give the connection up if this is not done to its end, as after ^C: all are told."""
        try:
            yield
        except BaseException as error:
            self._pipeline.give_up(psycopg.OperationalError(f"interrupted: {error!r}"))
            raise

    # --- the jobs

    def _take(self, job: Job) -> bool:
        """Take a job; False if it is none that can be done here, or now."""
        if self._pipeline.of(asyncio.get_running_loop()) is None:
            return False
        operation = job.operation()
        statement = next(operation, None)
        if statement is None or not statement.alone:
            return False
        self._waiting.append(_Asked(job, statement, operation))
        self._go_on()
        return True

    def _go_on(self) -> None:
        """Send what waits, once whoever else is ready to ask has asked."""
        if self._waiting and not self._sent and self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._turn = None
        with self._or_lost():
            if self._pipeline.now is not None:
                self._pipeline.now.check()
            # If it is lost, the threads have what waited.
            pipeline = self._pipeline.now
            sendable = self._choose(pipeline) if pipeline is not None else []
            if (
                pipeline is not None
                and sendable
                and self._observed(lambda: boundaries.reached("commit:before"))
            ):
                pipeline.send(sendable)
            self._end_if_left()

    def _choose(self, pipeline: Pipeline) -> list[Sendable]:
        """The next jobs that somebody still waits for, as they are sent."""
        chosen: list[Sendable] = []
        size = 0
        while self._waiting and len(chosen) < MAX_BATCH:
            asked = self._waiting.popleft()
            if not asked.job.begin():
                continue
            try:
                each = pipeline.dump(asked.statement)
            except Exception as error:
                log.debug("left to the threads: %s", error)  # Who tell what is wrong.
                self.threads.put(asked.job)
                continue
            size += each.size
            if chosen and size > BATCH_BYTES:
                self._waiting.appendleft(asked)
                break
            chosen.append(each)
            self._sent.append(asked)
        return chosen

    def _answered(self, answer: list[PGresult] | psycopg.Error) -> None:
        with self._or_lost():
            if isinstance(answer, psycopg.Error):
                self._leave_to_threads(answer)
            elif self._observed(lambda: boundaries.reached("commit:after")):
                self._tell_results(answer)
            self._go_on()
            self._end_if_left()

    def _leave_to_threads(self, error: psycopg.Error) -> None:
        log.debug("a batch of %d is left to the threads: %s", len(self._sent), error)
        sent, self._sent = self._sent, []
        for asked in sent:
            self.threads.put(asked.job)
        if isinstance(error, LOST):
            self._pipeline.give_up(error)

    def _tell_results(self, results: list[PGresult]) -> None:
        pipeline = self._pipeline.now
        assert pipeline is not None, "it has answered"
        if self._committed is not None:
            # First, so that whoever waits for the commit finds it told already.
            self._committed(progress=all(asked.job.progress for asked in self._sent))
        for asked, result in zip(self._sent, results, strict=True):
            try:
                asked.operation.send(pipeline.rows(result))
            except StopIteration as end:
                _tell(asked, end.value)
            except Exception as error:
                _tell(asked, error=translate(error, self._where.shown))
            else:
                self.threads.put(asked.job)  # Nothing was done, and it asks why.
        self._sent = []

    def _observed(self, reach: Callable[[], None]) -> bool:
        """Whether it goes on from there; if an observer refuses, all are told."""
        try:
            if self._committed is not None:
                reach()
        except Exception as error:
            sent, self._sent = self._sent, []
            for asked in sent:
                _tell(asked, error=error)
            return False
        return True


def _tell(asked: _Asked, result: Any = None, *, error: BaseException | None = None) -> None:
    future = asked.job.future
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
