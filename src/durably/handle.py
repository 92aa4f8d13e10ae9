"""The least that a handle on a run is: its key, and the run as it was when somebody last looked.

Owns looking again; what can be asked, and decided, is for those above.
"""

from __future__ import annotations

from typing import Self

from durably.agents.registry import Registry
from durably.allowed import run_actions
from durably.budgets import NO_LIMIT, Budget, Spent, spent_of
from durably.ledger import reads
from durably.ledger.database import Database
from durably.lifecycle import RunState
from durably.records import RunRecord


class RunHandle:
    """One run, by its key.

    Attributes:
        record: the run as it was when this handle last looked (`refresh` looks again).
    """

    def __init__(self, ledger: Database, registry: Registry, record: RunRecord) -> None:
        self._ledger = ledger
        self._registry = registry
        self.record = record

    def __repr__(self) -> str:
        return f"<Run {self.key!r} {self.state}>"

    @property
    def key(self) -> str:
        """The unique key."""
        return self.record.key

    @property
    def state(self) -> RunState:
        """The state when this handle last looked."""
        return self.record.state

    async def refresh(self) -> Self:
        """Look again; returns this handle."""
        self.record = await self._ledger.read(reads.get_run, self.key, alone=True)
        return self

    @property
    def actions_allowed(self) -> tuple[str, ...]:
        """What may be done about it now: of ``cancel``, ``retry``, ``raise_budget``, ``signal``.

        What may be decided about its calls says `durably.allowed`.
        """
        return run_actions(self.record)

    @property
    def budget(self) -> Budget:
        """What it may spend: its own limits and, where it has none, its agent's.

        Where this process does not know the agent, its own alone.
        """
        registration = self._registry.find(self.record.agent)
        declared = registration.budget if registration else NO_LIMIT
        return declared.overlaid(self.record.budget)

    @property
    def spent(self) -> Spent:
        """What it has spent so far, over all its attempts, at its last checkpoint."""
        return spent_of(self.record.usage, self.record.cost_nanousd)
