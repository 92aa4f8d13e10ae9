"""durably's queue and ledger without an agent: what a run costs before pydantic-ai is asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from durably import Durably
from durably.dispatch.choice import Dispatching
from durably.execution.executor import AttemptOptions, Executor
from durably.execution.journal import Journal
from durably.execution.outcome import Completed
from durably.intake import JobIntake
from durably.worker import Worker, WorkerOptions
from queues.contestant import Started
from queues.contestants.durably import QUEUE, Runs


class Nothing:
    """Performs a run without doing anything."""

    def __init__(self, started: Started) -> None:
        self._started = started

    def options(self, agent: str) -> AttemptOptions:
        return AttemptOptions()

    async def perform(self, journal: Journal) -> Completed:
        self._started()
        return Completed('"ok"', '{"requests": 0}', ())


class BareRuns(Runs):
    """Runs that need no agent."""

    def __init__(self, app: Durably, started: Started) -> None:
        super().__init__(app)
        self._executor = Executor(app.ledger, Nothing(started))

    @asynccontextmanager
    async def working(self, limit: int) -> AsyncGenerator[None]:
        dispatching = Dispatching(JobIntake(self.app.registry))
        options = WorkerOptions({QUEUE: limit})
        worker = Worker(self.app.ledger, self._executor, options, dispatching)
        await worker.start()
        try:
            yield
        finally:
            await worker.stop()


@asynccontextmanager
async def opened(url: str, started: Started) -> AsyncGenerator[BareRuns]:
    async with Durably(url) as app:
        yield BareRuns(app, started)
