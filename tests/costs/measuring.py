"""One run, from enqueue to its end, executed as a worker executes it, by itself and in order.

Without the worker's own looks, heartbeats and notices, and without Oban's statements about its
jobs: how many of them there are is a matter of time, not of the run.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from pydantic_ai import Agent

from costs.scenarios import Scenario
from costs.taps import PostgresTap, sqlite_tap
from costs.transactions import Record
from durably import Durably, RunState, agents
from durably.dispatch.oban.claiming import Claims
from durably.execution.control import AttemptControl
from durably.execution.executor import Executor
from durably.intake import ChildIntake
from durably.ledger import attempts, workers
from durably.ledger.jobs import Refusal, Wakeup
from durably.records import RunRecord
from durably.run import Run
from support.databases import sql

WORKER = "w1"

WARM_UP = 8
"""How many runs go first: what only the first ones of a process ask is not counted."""


async def measure(scenario: Scenario, url: str) -> list[str]:
    """What one run of a scenario asks of the database, as lines of text."""
    record, heard = Record(), url
    with ExitStack() as listening:
        if url.startswith("sqlite"):
            listening.enter_context(sqlite_tap(record))
        else:
            tap = listening.enter_context(PostgresTap(url, record))
            # One connection that writes, nobody to tell, and no statement that is prepared when
            # it happens to come for the fifth time.
            heard = f"{tap.url}&pool_size=1&notify=off&prepare=off"
        async with Durably(heard, agents=[agent := scenario.agent()]) as app:
            site = _Site(app, url, record)
            await app.ledger.write(workers.register, WORKER, WORKER, 1, {"agents": 1}, 3600.0)
            for _ in range(WARM_UP):
                await site.complete(agent, scenario.approvals)
            record.clear()
            await site.complete(agent, scenario.approvals)
            return list(record.lines())


class _Site:
    """An application, and a worker of which there is nothing but its lease.

    Args:
        url: of the ledger, by a way on which nobody listens.
    """

    def __init__(self, app: Durably, url: str, record: Record) -> None:
        self._app = app
        self._url = url
        self._record = record
        runner = agents.runner.Runner(app.registry, ChildIntake(app.registry))
        self._executor = Executor(app.ledger, runner)
        self._claims = Claims(app.ledger, WORKER)

    async def complete(self, agent: Agent[None, str], approvals: int) -> None:
        with self._recorded("enqueue"):
            run = await self._app.enqueue(agent, "hi")
        await self._attempt(run)
        for _ in range(approvals):
            (item,) = await self._app.inbox()
            assert item.effect is not None
            with self._recorded("approve"):
                await run.approve(item.effect.call_id)
            await self._attempt(run)
        assert run.state is RunState.COMPLETED, run.record

    async def _attempt(self, run: Run[str]) -> None:
        await run.refresh()
        claimed = await self._claim(run.record)
        with self._recorded("attempt"):
            await self._executor.execute(claimed, AttemptControl())
        await run.refresh()

    async def _claim(self, run: RunRecord) -> RunRecord:
        write = self._app.ledger.write
        if self._app.ledger.dialect == "sqlite":
            with self._recorded("claim"):
                (claimed,) = await write(attempts.claim, WORKER, run.queue, 1)
            return claimed
        ((job_id,),) = sql(self._url, f"SELECT job_id FROM durably_runs WHERE id = {run.id}")
        with self._recorded("claim"):
            found = await self._claims.claim(Wakeup(job_id, run.key, run.scheduled_at))
        assert not isinstance(found, Refusal), found
        return found

    @contextmanager
    def _recorded(self, phase: str) -> Generator[None]:
        self._record.phase = phase
        try:
            yield
        finally:
            self._record.phase = ""
