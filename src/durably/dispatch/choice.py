"""Which dispatcher serves a ledger: the one place that knows that Postgres comes with Oban."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from durably.dispatch.dispatcher import Dispatcher, Slots
from durably.dispatch.embedded import EmbeddedDispatcher
from durably.dispatch.queues import QueueSettings
from durably.dispatch.requests import Intake
from durably.errors import ConfigError
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
    """The dispatcher that this ledger's runs are started by.

    Raises:
        ConfigError: there are options for Oban, and no Oban; or one of them cannot be; or a test
            has put something before the ledger.
    """
    if ledger.dialect == "postgres" and dispatching is not None:
        from durably.dispatch.oban import ObanDispatcher
        from durably.ledger.postgres.database import PostgresDatabase

        if not isinstance(ledger, PostgresDatabase):
            raise ConfigError(
                "Oban has connections of its own, which crash_at cannot cut: drain() within it, or "
                "kill a whole worker."
            )
        return ObanDispatcher(
            ledger, worker_id, queues, slots, dispatching.intake, dispatching.oban
        )
    if dispatching is not None and dispatching.oban:
        raise ConfigError(
            f"Options for Oban ({', '.join(dispatching.oban)}) need a ledger on PostgreSQL; this "
            f"one is {ledger.url}."
        )
    return EmbeddedDispatcher(ledger, worker_id, queues, slots)
