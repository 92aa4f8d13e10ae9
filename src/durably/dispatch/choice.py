"""Which dispatcher serves a ledger: the one place that knows that Postgres comes with Oban."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from durably.dispatch.dispatcher import Dispatcher, Slots
from durably.dispatch.embedded import EmbeddedDispatcher
from durably.dispatch.queues import QueueSettings
from durably.dispatch.requests import Intake
from durably.ledger.database import Database


@dataclass(frozen=True, slots=True)
class Dispatching:
    """What a dispatcher is told by the application.

    Attributes:
        intake: how jobs from other languages become runs.
        oban: options for Oban itself, such as ``metrics`` or ``pruner``.
    """

    intake: Intake
    oban: Mapping[str, Any] = field(default_factory=dict[str, Any])


def dispatcher_for(
    ledger: Database,
    worker_id: str,
    queues: QueueSettings,
    slots: Slots,
    dispatching: Dispatching | None,
) -> Dispatcher:
    """The dispatcher that this ledger's runs are started by."""
    if ledger.dialect == "postgres" and dispatching is not None:
        from durably.dispatch.oban import ObanDispatcher
        from durably.ledger.postgres.database import PostgresDatabase

        assert isinstance(ledger, PostgresDatabase), "the one driver of this dialect"
        return ObanDispatcher(ledger, worker_id, queues, dispatching.intake, dispatching.oban)
    return EmbeddedDispatcher(ledger, worker_id, queues, slots)
