"""Who writes to a SQLite file when, and in which thread.

Owns the jobs that wait and whose turn it is; what a turn does on the connection is `batches`'s.

A commit waits for the disk, in a thread of its own. Statements mostly don't: what was just written
is in memory. In another thread than the one that asks they cost more than themselves, since the
interpreter changes threads around each one (docs/decisions/0005). So what is `brief` is run in the
event loop that asks for it, and only committed in the thread; all else, and whatever has to wait,
is run in the thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple

from durably.errors import LedgerClosed
from durably.ledger.lanes import MAX_BATCH, Answer, Job, job_here, tell
from durably.ledger.operations import Operation
from durably.ledger.sqlite.batches import Batches
from durably.ledger.sqlite.loops import OnLoops

MAX_BATCH_ON_LOOP = 64
"""How many jobs' statements an event loop runs in one go at most."""


class _Begun(NamedTuple):
    """A batch to be committed.

    Attributes:
        answers: what is to be told then, if an event loop has run the statements already.
    """

    jobs: list[Job]
    answers: list[Answer] | None = None


class Writer:
    """The jobs that wait for a connection, and a thread that commits.

    Args:
        told: called after each commit; with True if no other process has committed since the last
            one, and nothing but progress was written.
        on_loops: whether event loops run statements.
    """

    def __init__(self, batches: Batches, told: Callable[[bool], None], on_loops: OnLoops) -> None:
        self._batches = batches
        self._told = told
        self._on_loops = on_loops
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._open = True
        # Whoever uses the connection sets it, and nobody else does so meanwhile.
        self._busy = False
        self._thread_wanted = False
        self._asked: asyncio.AbstractEventLoop | None = None
        self._begun: _Begun | None = None
        self._thread = threading.Thread(target=self._work, name="durably-writer", daemon=True)
        self._thread.start()

    # --- who asks

    def submit[T](self, operation: Callable[[], Operation[T]]) -> Future[T]:
        """Have a job done, for whoever waits in a thread."""
        future: Future[T] = Future()
        self._put(Job(operation, future))
        return future

    async def run[T](
        self, operation: Callable[[], Operation[T]], *, brief: bool = False, progress: bool = False
    ) -> T:
        """Have a job done, and wait for it; cancelled before it has begun, it is not done.

        Args:
            brief: whether it takes what `operations.brief` says.
            progress: whether it writes only what `operations.progress` says.
        """
        job, future = job_here(operation, progress=progress)
        self._put(job, brief=brief)
        return await future

    def stop(self) -> None:
        """Do what has been asked for, and close the connection."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        self._thread.join()
        with self._alone():
            self._batches.close()

    def find_others(self) -> bool:
        """Whether anybody else has committed since this was found out last.

        Other connections of this process are others.
        """
        with self._alone():
            return self._batches.find_others()

    def _put(self, job: Job, *, brief: bool = False) -> None:
        with self._changed:
            # Behind the last job nobody would ever look at this one.
            if not self._open:
                raise LedgerClosed("The ledger has been closed meanwhile.")
            alike = not self._jobs or self._jobs[-1].loop is job.loop
            self._jobs.append(job)
            if self._thread_wanted or not (brief and alike and self._on_loops.allowed):
                self._want_thread()
            elif not self._busy:
                self._ask_loop(job.loop, here=True)

    # --- whose turn it is; each of these has the lock

    def _ask_loop(self, loop: asyncio.AbstractEventLoop | None, *, here: bool = False) -> None:
        """Have a loop begin what waits, all of which is its own; if it is closed, the thread.

        Args:
            here: that this is the loop's thread, and it need not be woken.
        """
        assert loop is not None, "jobs of threads want the thread"
        if self._asked is loop:
            return
        try:
            (loop.call_soon if here else loop.call_soon_threadsafe)(self._begin, loop)
            self._asked = loop
        except RuntimeError:
            if not loop.is_closed():
                raise
            self._want_thread()

    def _want_thread(self) -> None:
        self._thread_wanted = True
        self._changed.notify_all()

    def _take(self, most: int) -> list[Job]:
        """The next jobs that somebody still waits for."""
        jobs: list[Job] = []
        while self._jobs and len(jobs) < most:
            job = self._jobs.popleft()
            if job.begin():
                jobs.append(job)
        self._thread_wanted = self._thread_wanted and bool(self._jobs)
        self._busy = bool(jobs)
        return jobs

    def _pass_on(self) -> None:
        """The connection is free for whoever is next."""
        self._busy = False
        if self._jobs and not self._thread_wanted:
            self._ask_loop(self._jobs[0].loop)
        self._changed.notify_all()

    @contextmanager
    def _alone(self) -> Generator[None]:
        """The connection, for a moment."""
        with self._changed:
            while self._busy:
                self._changed.wait()
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._pass_on()

    # --- in an event loop

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run the statements of what waits, and leave the commit to the thread."""
        with self._changed:
            if self._asked is not loop:
                return  # The thread was faster, and what waits now is another loop's.
            self._asked = None
            if self._busy or self._thread_wanted or not self._open:
                return
            jobs = self._take(MAX_BATCH_ON_LOOP)
        if not jobs:
            return
        answers: list[Answer] | None = None
        try:
            with self._on_loops.timed():
                answers = self._batches.run_at_once(jobs)
        finally:
            with self._changed:
                self._begun = _Begun(jobs, answers)
                self._changed.notify_all()

    # --- in the thread

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            try:
                answers, progress = self._batches.commit(*batch)
                tell(answers)
            finally:
                with self._changed:
                    self._pass_on()
            if progress is not None:
                self._told(progress)

    def _next(self) -> _Begun | None:
        """What is to be committed; None once there will be nothing any more."""
        with self._changed:
            while True:
                if self._begun is not None:
                    begun, self._begun = self._begun, None
                    return begun
                if not self._busy:
                    if (self._thread_wanted or not self._open) and self._jobs:
                        if jobs := self._take(MAX_BATCH):
                            return _Begun(jobs)
                        continue
                    if not self._open:
                        return None
                self._changed.wait()
