"""What an operator does with a ledger: open, migrate, examine, pause queues, set budgets, prune.

Owns no rule of its own: what a call means is in the part that it is passed on to.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from durably.agents.registry import Registry
from durably.budgets import Budget, SharedBudget
from durably.config import Settings
from durably.errors import ConfigError, SchemaError
from durably.execution.funding import wake_waiting_for
from durably.health import examine
from durably.intake import sharers
from durably.ledger import budgets, queues, reads, runs
from durably.ledger.connect import database_for
from durably.lifecycle import FINAL
from durably.records import (
    Finding,
    QueueRecord,
    QueueSetting,
    WorkerRecord,
)

if TYPE_CHECKING:
    from durably.ledger.database import Database


class Administration:
    """A ledger as its operators see it.

    Attributes:
        settings: what was set, and where.
        ledger: the database.
        registry: the agents, for what an examination says of them.
    """

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self.settings = settings
        self.ledger: Database = database_for(settings.url)
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

    # --- workers and queues

    async def workers(self) -> list[WorkerRecord]:
        """The workers, alive or lately dead."""
        await self.open()
        return await self.ledger.read(reads.list_workers)

    async def queues(self) -> list[QueueRecord]:
        """Every queue that has runs, or a live worker, or that was paused or scaled."""
        await self.open()
        return await self.ledger.read(reads.list_queues)

    async def pause(self, queue: str) -> QueueSetting:
        """Let no attempt of a queue begin, on any worker, until `resume`.

        Attempts under way go on. The queue may have no run yet. Workers that start later keep to
        it as well; `run` does not, because it executes its own run.

        Raises:
            ConfigError: no queue can be called that.
        """
        await self.open()
        return await self.ledger.write(queues.pause, queue)

    async def resume(self, queue: str) -> QueueSetting:
        """Let attempts of a queue begin again; does nothing if it is not paused.

        Raises:
            ConfigError: no queue can be called that.
        """
        await self.open()
        return await self.ledger.write(queues.resume, queue)

    async def scale(self, queue: str, limit: int | None) -> QueueSetting:
        """Let every worker that serves a queue execute ``limit`` of its runs at once.

        It holds for each worker, not for all together, and wins over what each was started with.
        Where more are under way, they go on and end.

        Args:
            limit: from 1; None lets each worker go back to its own.

        Raises:
            ConfigError: no queue can be called that, or the limit cannot be.
        """
        await self.open()
        return await self.ledger.write(queues.scale, queue, limit)

    # --- budgets that runs share

    async def set_budget(
        self, budget: Budget, *, thread: str | None = None, tag: str | None = None
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
        record = await self.ledger.write(budgets.set_shared, scope, name, budget)
        await wake_waiting_for(self.ledger, scope, name)
        return record

    async def remove_budget(self, *, thread: str | None = None, tag: str | None = None) -> None:
        """Limit these runs together no more, and forget what they spent.

        Raises:
            ConfigError: neither or both are given, or there is no such budget.
        """
        scope, name = sharers(thread, tag)
        await self.open()
        await self.ledger.write(budgets.remove_shared, scope, name)
        await wake_waiting_for(self.ledger, scope, name)

    async def budgets(self) -> list[SharedBudget]:
        """Every shared budget, with what was spent of it."""
        await self.open()
        return await self.ledger.read(budgets.list_shared)

    # --- house-keeping

    async def prune(
        self, *, older_than: float, state: str | None = None, batch: int = 500
    ) -> AsyncGenerator[int]:
        """Delete final runs that ended more than ``older_than`` seconds ago.

        Yields:
            How many have been deleted so far, after each batch.

        Raises:
            ConfigError: ``state`` is no final state.
        """
        _check_prunable(state)
        await self.open()
        deleted = 0
        while count := await self.ledger.write(runs.prune, older_than, state, batch):
            deleted += count
            yield deleted

    async def count_prunable(self, *, older_than: float, state: str | None = None) -> int:
        """How many runs `prune` would delete."""
        _check_prunable(state)
        await self.open()
        return await self.ledger.read(reads.count_prunable, older_than, state)


def _check_prunable(state: str | None) -> None:
    if state is not None and state not in FINAL:
        raise ConfigError(f"{state!r} runs are not pruned; use one of: {', '.join(sorted(FINAL))}.")
