"""Threads that work through jobs in order, several at a time: what group commit is made of.

Owns the queue and the threads; what working means is the driver's.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from durably.errors import LedgerClosed
from durably.ledger.operations import Operation

MAX_BATCH = 256
"""How many waiting writes share one commit at most; bounds how long the first of them waits."""


@dataclass(slots=True)
class Job:
    """One operation and who waits for it.

    Attributes:
        subject: what it writes about, if it is known: a run.
    """

    operation: Callable[[], Operation[Any]]
    future: Future[Any]
    subject: Hashable = None


class Lane:
    """Threads that work through one line of jobs, each with a connection of its own.

    What is about one subject is done in order and by one thread at a time: two of them would only
    wait for each other's locks, and two batches for one another's, each holding what the other
    wants.

    Args:
        works: what each thread does with the jobs that it takes from the line.
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
        future: Future[T] = Future()
        with self._changed:
            # Behind the last job nobody would ever look at this one.
            if not self._open:
                raise LedgerClosed("The ledger has been closed meanwhile.")
            self._jobs.append(Job(operation, future, subject))
            self._changed.notify()
        return future

    def stop(self) -> None:
        """End the threads once every job that was submitted is done."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

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
                    job.future.add_done_callback(partial(self._release, job.subject))
            return batch

    def _choose(self) -> list[Job]:
        chosen: list[Job] = []
        passed_over: list[Job] = []
        while self._jobs and len(chosen) < MAX_BATCH:
            job = self._jobs.popleft()
            (passed_over if self._busy[job.subject] else chosen).append(job)
        self._jobs.extendleft(reversed(passed_over))
        self._passed_over.update(job.subject for job in passed_over)
        return chosen

    def _release(self, subject: Hashable, _: Future[Any]) -> None:
        """One of its jobs is done; whatever else is in that one's batch may still wait."""
        with self._changed:
            self._busy[subject] -= 1
            if not self._busy[subject]:
                del self._busy[subject]
                if subject in self._passed_over:
                    self._passed_over.remove(subject)
                    self._changed.notify()
            if not self._open:
                self._changed.notify_all()  # Who waits for it may find that nothing is left.
