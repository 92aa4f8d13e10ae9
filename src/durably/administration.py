"""What an operator does with a ledger: open, migrate, examine, pause queues, set budgets, prune.

Owns no rule of its own: what a call means is in the part that it is passed on to.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from durably.agents.registry import Registry
from durably.budgets import Budget, SharedBudget
from durably.config import Settings
from durably.deciding import OPERATOR
from durably.errors import ConfigError, SchemaError
from durably.execution.funding import wake_waiting_for
from durably.health import examine, readiness
from durably.intake import MAX_SECONDS, sharers
from durably.ledger import actions, budgets, queues, reads, runs, statistics
from durably.ledger.actions import NewAction
from durably.ledger.connect import database_for
from durably.ledger.operations import Operation
from durably.lifecycle import FINAL
from durably.records import (
    GROUPS,
    Action,
    DueRecord,
    Finding,
    QueueRecord,
    QueueSetting,
    Readiness,
    Statistics,
    WorkerRecord,
)

if TYPE_CHECKING:
    from durably.ledger.database import Clock, Database


MAX_BUCKETS = 1000
"""Into how many parts statistics may divide a window."""


class Administration:
    """A ledger as its operators see it.

    Attributes:
        settings: what was set, and where.
        ledger: the database.
        registry: the agents, for what an examination says of them.
    """

    def __init__(self, settings: Settings, registry: Registry, clock: Clock | None = None) -> None:
        self.settings = settings
        self.ledger: Database = database_for(settings.url, clock)
        self.registry = registry

    async def open(self, *, create: bool = True) -> None:
        """Open the ledger, creating or upgrading its tables; every call does it when needed.

        Args:
            create: False refuses where there is no ledger yet.

        Raises:
            LedgerUnavailable, LedgerCorrupt, SchemaError: it cannot be used; the message says why.
        """
        if not create and not await self.ledger.exists():
            raise SchemaError(
                f"There is no ledger at {self.ledger.url}: check the URL, or create it with "
                "`durably migrate`."
            )
        await self.ledger.open()

    async def migrate(self) -> tuple[int, int]:
        """Make the ledger's tables, or bring them up to date, and open it.

        Returns:
            Which schema version was there (0: none), and which is now.
        """
        await self.ledger.migrate()
        return self.ledger.versions

    async def migration_sql(self, found: int | None = None) -> str:
        """What `migrate` would do on PostgreSQL, as a script for somebody who may; changes nothing.

        Args:
            found: the schema version that is there (0: none); by default it is looked up.

        Raises:
            ConfigError: a ledger on SQLite needs no script; or there is no such version.
        """
        return await self.ledger.migration_sql(found)

    async def examine(self) -> list[Finding]:
        """What is right and wrong with the ledger, the workers, the queues and the agents."""
        return await examine(self.ledger, self.registry)

    async def close(self) -> None:
        """Let go of the ledger; the next call opens it again."""
        await self.ledger.close()

    async def ready(self, *, timeout: float = 5.0) -> Readiness:
        """Whether runs are being executed: for a probe. Makes no ledger, and raises nothing.

        Args:
            timeout: seconds that the database has to answer.
        """
        return await readiness(self.ledger, timeout)

    async def statistics(
        self,
        window_seconds: float = 3600.0,
        *,
        by: str | None = None,
        agent: str | None = None,
        queue: str | None = None,
        model: str | None = None,
        buckets: int = 60,
    ) -> Statistics:
        """What there is now, and what ended in the last ``window_seconds``.

        Args:
            by: ``"agent"``, ``"queue"`` or ``"model"``: also tell these apart.
            agent, queue, model: count only runs of these among those that ended. A model's name is
                as prices name it, such as ``openai:gpt-5``.
            buckets: into how many parts of equal length the window is divided; up to 1000.

        Raises:
            ConfigError: there is no such ``by``, or no such window or number of buckets.
        """
        if by is not None and by not in GROUPS:
            raise ConfigError(f"by={by!r}: use one of: {', '.join(GROUPS)}.")
        if not 0 < window_seconds <= MAX_SECONDS:  # also refuses NaN
            raise ConfigError(
                f"window_seconds={window_seconds}: more than 0, up to {MAX_SECONDS:.0f} seconds."
            )
        if not 1 <= buckets <= MAX_BUCKETS:
            raise ConfigError(f"buckets={buckets}: from 1 to {MAX_BUCKETS}.")
        await self.open()
        return await self.ledger.read(
            statistics.look, window_seconds, buckets, by, agent, queue, model
        )

    async def actions(
        self, *, run: str | None = None, before: int | None = None, limit: int = 50
    ) -> list[Action]:
        """The audit trail: what people and programs did through this API, newest first.

        It is written with what was done, in one transaction, and outlives the runs.

        Args:
            run: only what was done to the run with this key, also if it is not there any more.
            before: the ``id`` of the last action of the page before.
        """
        await self.open()
        return await self.ledger.read(actions.list_actions, run, before, limit)

    # --- workers and queues

    async def workers(self) -> list[WorkerRecord]:
        """The workers, alive or lately dead."""
        await self.open()
        return await self.ledger.read(reads.list_workers)

    async def queues(self, *, open_only: bool = False) -> list[QueueRecord]:
        """Every queue that has runs, or a live worker, or that was paused or scaled.

        Args:
            open_only: count no runs that are over: quick, however many there are of these.
        """
        await self.open()
        return await self.ledger.read(reads.list_queues, open_only)

    async def due(self) -> list[DueRecord]:
        """How many runs of each queue could be claimed now, and since when."""
        await self.open()
        return await self.ledger.read(reads.list_due)

    async def pause(self, queue: str, *, by: str = OPERATOR) -> QueueSetting:
        """Let no attempt of a queue begin, on any worker, until `resume`.

        Attempts under way go on. The queue may have no run yet. Workers that start later keep to
        it as well; `run` does not, because it executes its own run.

        Args:
            by: who decides, here and below; kept in the audit trail.

        Raises:
            ConfigError: no queue can be called that.
        """
        await self.open()
        return await self._record("pause", by, queue, lambda: queues.pause(queue))

    async def resume(self, queue: str, *, by: str = OPERATOR) -> QueueSetting:
        """Let attempts of a queue begin again; does nothing if it is not paused.

        Raises:
            ConfigError: no queue can be called that.
        """
        await self.open()
        return await self._record("resume", by, queue, lambda: queues.resume(queue))

    async def scale(self, queue: str, limit: int | None, *, by: str = OPERATOR) -> QueueSetting:
        """Let every worker that serves a queue execute ``limit`` of its runs at once.

        It holds for each worker, not for all together, and wins over what each was started with.
        Where more are under way, they go on and end.

        Args:
            limit: from 1; None lets each worker go back to its own.

        Raises:
            ConfigError: no queue can be called that, or the limit cannot be.
        """
        await self.open()
        return await self._record(
            "scale", by, queue, lambda: queues.scale(queue, limit), {"limit": limit}
        )

    # --- budgets that runs share

    async def set_budget(
        self,
        budget: Budget,
        *,
        thread: str | None = None,
        tag: str | None = None,
        by: str = OPERATOR,
    ) -> SharedBudget:
        """Limit what all runs of a thread, or with a tag, may spend together.

        Set again, its limits change and what was spent stays. What was spent before it was first
        set is not counted. Runs that wait for it go on if it has room now.

        Args:
            thread, tag: whose runs share it; exactly one of them.

        Raises:
            ConfigError: neither or both are given, or the budget limits nothing.
        """
        scope, name = sharers(thread, tag)
        if not budget.limited:
            raise ConfigError(f"This budget limits nothing; remove_budget({scope}=...) does that.")
        await self.open()
        record = await self._record(
            "set_budget",
            by,
            f"{scope} {name}",
            lambda: budgets.set_shared(scope, name, budget),
            {"limits": budget.to_json()},
        )
        await wake_waiting_for(self.ledger, scope, name)
        return record

    async def remove_budget(
        self, *, thread: str | None = None, tag: str | None = None, by: str = OPERATOR
    ) -> None:
        """Limit these runs together no more, and forget what they spent.

        Raises:
            ConfigError: neither or both are given, or there is no such budget.
        """
        scope, name = sharers(thread, tag)
        await self.open()
        about = f"{scope} {name}"
        await self._record("remove_budget", by, about, lambda: budgets.remove_shared(scope, name))
        await wake_waiting_for(self.ledger, scope, name)

    async def budgets(self) -> list[SharedBudget]:
        """Every shared budget, with what was spent of it."""
        await self.open()
        return await self.ledger.read(budgets.list_shared)

    # --- house-keeping

    async def prune(
        self,
        *,
        older_than: float,
        state: str | None = None,
        batch: int = 500,
        by: str = OPERATOR,
    ) -> AsyncGenerator[int]:
        """Delete final runs that ended more than ``older_than`` seconds ago.

        Then what the audit trail says of longer ago and of no run that is still there; unless only
        runs of one ``state`` are deleted.

        Yields:
            How many runs have been deleted so far, after each batch.

        Raises:
            ConfigError: ``state`` is no final state.
        """
        _check_prunable(state)
        await self.open()
        data = {"older_than_seconds": older_than, "state": state}
        first: NewAction | None = NewAction("prune", by, data=data)
        before = await self.actions(limit=1)
        deleted = 0
        while count := await self.ledger.write(_prune_batch, older_than, state, batch, first):
            first, deleted = None, deleted + count
            yield deleted
        if state is None and before:
            while await self.ledger.write(actions.prune, older_than, before[0].id, batch):
                pass

    async def count_prunable(self, *, older_than: float, state: str | None = None) -> int:
        """How many runs `prune` would delete."""
        _check_prunable(state)
        await self.open()
        return await self.ledger.read(reads.count_prunable, older_than, state)

    # --- inside

    async def _record[T](
        self,
        action: str,
        by: str,
        subject: str,
        operation: Callable[[], Operation[T]],
        data: Mapping[str, Any] | None = None,
    ) -> T:
        """Do something that is about no run, and write down who did it."""
        new = NewAction(action, by, subject=subject, data=data or {})
        return await self.ledger.write(actions.recorded, new, operation)


def _prune_batch(
    older_than: float, state: str | None, batch: int, action: NewAction | None
) -> Operation[int]:
    """One batch; what somebody did is written down with the first that deletes anything."""
    count = yield from runs.prune(older_than, state, batch)
    if count and action is not None:
        yield from actions.record(action)
    return count


def _check_prunable(state: str | None) -> None:
    if state is not None and state not in FINAL:
        raise ConfigError(f"{state!r} runs are not pruned; use one of: {', '.join(sorted(FINAL))}.")
