"""A pool of connections to the ledger's server, for a library that brings its own statements.

Owns how quickly it comes back after an outage, and that nothing frozen holds what it has locked.
"""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from durably.ledger.postgres.connection import FROZEN_SECONDS
from durably.ledger.postgres.url import PostgresUrl

POOL_SECONDS = 3.0
"""How long a connection is waited for; whoever waited in vain asks again."""

RECONNECT_SECONDS = 2.0
"""How long the pool tries to make a connection before it waits to be asked for one again. Its
default backs off for minutes, and finds out late that the server is back."""

AWAY = (psycopg.OperationalError, psycopg.InterfaceError, OSError)
"""What its users meet while the server is away; also a timeout, of the pool's or of asyncio's."""


def new_pool(where: PostgresUrl, name: str, size: int) -> AsyncConnectionPool[Any]:
    """A pool that is still to be opened.

    Args:
        name: also what its sessions are called in ``pg_stat_activity``.
        size: how many connections at most.
    """
    looking: set[asyncio.Task[None]] = set()

    async def check(connection: AsyncConnection[Any]) -> None:
        try:
            await pool.check_connection(connection)
        except psycopg.Error:
            # The others will be lost as well. One by one, to find that out takes seconds.
            looking.add(look := asyncio.create_task(pool.check()))
            look.add_done_callback(looking.discard)
            raise

    pool = AsyncConnectionPool[Any](
        # All in one text: Oban's notifier makes its own connection from this.
        where.conninfo_as(name),
        min_size=1,
        max_size=size,
        open=False,
        timeout=POOL_SECONDS,
        reconnect_timeout=RECONNECT_SECONDS,
        check=check,
        # Behind a pooler that mixes sessions, it would be set for others as well.
        configure=_end_when_frozen if where.prepare else None,
        name=name,
        kwargs={"prepare_threshold": 5 if where.prepare else None},
    )
    return pool


async def _end_when_frozen(connection: AsyncConnection[Any]) -> None:
    """Have the server end a transaction that stands still: its process is frozen."""
    await connection.set_autocommit(True)
    await connection.execute(
        f"SET idle_in_transaction_session_timeout = '{FROZEN_SECONDS}s'".encode()
    )
    await connection.set_autocommit(False)
