"""Threads that work through jobs in order, several at a time: what group commit is made of.

Owns the queue and the threads; what working means is the driver's.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from durably.errors import LedgerClosed
from durably.ledger.operations import Operation

MAX_BATCH = 256
"""How many waiting writes share one commit at most; bounds how long the first of them waits."""


@dataclass(slots=True)
class Job:
    operation: Callable[[], Operation[Any]]
    future: Future[Any]


class Lane:
    """Threads that work through one line of jobs, each with a connection of its own.

    Args:
        works: what each thread does with the jobs that it takes from the line.
    """

    def __init__(self, name: str, works: Sequence[Callable[[list[Job]], None]]) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._open = True
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._loop, args=(work,), name=name, daemon=True)
            for work in works
        ]
        for thread in self._threads:
            thread.start()

    def submit[T](self, operation: Callable[[], Operation[T]]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            # Behind the last job nobody would ever look at this one.
            if not self._open:
                raise LedgerClosed("The ledger has been closed meanwhile.")
            self._jobs.put(Job(operation, future))
        return future

    def stop(self) -> None:
        with self._lock:
            self._open = False
            for _ in self._threads:
                self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _loop(self, work: Callable[[list[Job]], None]) -> None:
        while (job := self._jobs.get()) is not None:
            batch = [job]
            last = False
            while len(batch) < MAX_BATCH:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                batch.append(more)
            work(batch)
            if last:
                return
