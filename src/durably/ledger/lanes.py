"""Threads that work through jobs in order, several at a time: what group commit is made of.

Owns the queue, the threads and how whoever waits is told; what working means is the driver's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from durably.errors import LedgerClosed
from durably.ledger.operations import Operation

log = logging.getLogger(__name__)

MAX_BATCH = 256
"""How many waiting writes share one commit at most; bounds how long the first of them waits."""


@dataclass(slots=True, eq=False)
class Job:
    """One operation and who waits for it.

    Attributes:
        future: what they wait for, in a thread or on ``loop``.
        subject: what it writes about, if it is known: a run.
        progress: whether it writes only what `operations.progress` says.
        release: called once it is done.
    """

    operation: Callable[[], Operation[Any]]
    future: Future[Any] | asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop | None = None
    subject: Hashable = None
    progress: bool = False
    release: Callable[[Job], None] | None = None

    def begin(self) -> bool:
        """False if nobody waits for it any more: then it need not be done."""
        if isinstance(self.future, Future):
            return self.future.set_running_or_notify_cancel()
        return not self.future.cancelled()


def job_here[T](
    operation: Callable[[], Operation[T]], subject: Hashable = None, *, progress: bool = False
) -> tuple[Job, asyncio.Future[T]]:
    """A job that a task of the running event loop waits for, and what it awaits."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    return Job(operation, future, loop, subject, progress), future


class Answer(NamedTuple):
    """What became of a job: its result, unless there is an error."""

    job: Job
    result: Any = None
    error: BaseException | None = None


def tell(answers: Sequence[Answer]) -> None:
    """Tell whoever waits; each event loop is woken once, however many of its tasks wait."""
    on_loops: dict[asyncio.AbstractEventLoop, list[Answer]] = {}
    for answer in answers:
        job = answer.job
        if job.release is not None:
            job.release(job)
        if job.loop is None:
            _set(answer)
        else:
            on_loops.setdefault(job.loop, []).append(answer)
    for loop, here in on_loops.items():
        try:
            loop.call_soon_threadsafe(_set_all, here)
        except RuntimeError:
            # Closed: nobody waits there any more, and others' writes go on.
            if not loop.is_closed():
                raise
            log.debug("%d writes were made for an event loop that is closed", len(here))


def _set_all(answers: Sequence[Answer]) -> None:
    for answer in answers:
        if not answer.job.future.done():
            _set(answer)


def _set(answer: Answer) -> None:
    if answer.error is None:
        answer.job.future.set_result(answer.result)
    else:
        answer.job.future.set_exception(answer.error)


class Lane:
    """Threads that work through one line of jobs, each with a connection of its own.

    What is about one subject is done in order and by one thread at a time: two of them would only
    wait for each other's locks, and two batches for one another's, each holding what the other
    wants.

    Args:
        works: what each thread does with the jobs that it takes from the line; it tells of each.
    """

    def __init__(self, name: str, works: Sequence[Callable[[list[Job]], None]]) -> None:
        self._jobs: deque[Job] = deque()
        self._busy: Counter[Hashable] = Counter()
        self._passed_over: set[Hashable] = set()
        self._open = True
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._loop, args=(work,), name=name, daemon=True)
            for work in works
        ]
        for thread in self._threads:
            thread.start()

    def submit[T](
        self, operation: Callable[[], Operation[T]], subject: Hashable = None
    ) -> Future[T]:
        """Have a job done, for whoever waits in a thread."""
        future: Future[T] = Future()
        self.put(Job(operation, future, None, subject))
        return future

    async def run[T](self, operation: Callable[[], Operation[T]]) -> T:
        """Have a job done, and wait for it; cancelled before it has begun, it is not done."""
        job, future = job_here(operation)
        self.put(job)
        return await future

    def stop(self) -> None:
        """End the threads once every job that was submitted is done."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def put(self, job: Job) -> None:
        """Have a job done.

        Raises:
            LedgerClosed: the lane was stopped.
        """
        with self._changed:
            # Behind the last job nobody would ever look at this one.
            if not self._open:
                raise LedgerClosed("The ledger has been closed meanwhile.")
            self._jobs.append(job)
            self._changed.notify()

    def _loop(self, work: Callable[[list[Job]], None]) -> None:
        while batch := self._take():
            work(batch)

    def _take(self) -> list[Job]:
        """The next jobs, all that can be done now; none once the lane is closed."""
        with self._changed:
            while not (batch := self._choose()):
                if not self._open and not self._jobs:
                    return []
                self._changed.wait()
            for job in batch:
                if job.subject is not None:
                    self._busy[job.subject] += 1
                    job.release = self._release
            return batch

    def _choose(self) -> list[Job]:
        chosen: list[Job] = []
        passed_over: list[Job] = []
        while self._jobs and len(chosen) < MAX_BATCH:
            job = self._jobs.popleft()
            if job.subject is not None and self._busy[job.subject]:
                passed_over.append(job)
            elif job.begin():
                chosen.append(job)
        self._jobs.extendleft(reversed(passed_over))
        self._passed_over.update(job.subject for job in passed_over)
        return chosen

    def _release(self, job: Job) -> None:
        """One of its subject's jobs is done; whatever else is in its batch may still wait."""
        subject = job.subject
        with self._changed:
            self._busy[subject] -= 1
            if not self._busy[subject]:
                del self._busy[subject]
                if subject in self._passed_over:
                    self._passed_over.remove(subject)
                    self._changed.notify()
            if not self._open:
                self._changed.notify_all()  # Who waits for it may find that nothing is left.
