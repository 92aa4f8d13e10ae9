"""A crash in this process: the work of a block ends at a boundary, as if by SIGKILL.

Owns the block; what is cut off in it is `life`'s and `mortal`'s. For real signals see `killing`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from durably import boundaries
from durably.app import Durably
from durably.errors import ConfigError
from durably.testing.life import Life
from durably.testing.mortal import MortalLedger


class Crash:
    """A crash that is to come, or has.

    Attributes:
        boundary, nth, tool: where it falls.
    """

    def __init__(self, boundary: str, nth: int, tool: str | None, life: Life) -> None:
        self.boundary, self.nth, self.tool = boundary, nth, tool
        self._life = life

    @property
    def happened(self) -> bool:
        """True once the boundary was reached."""
        return self._life.dead

    @property
    def reached(self) -> Mapping[str, int]:
        """How often each boundary was reached so far."""
        return dict(self._life.reached)


@asynccontextmanager
async def crash_at(
    app: Durably, boundary: str, nth: int = 1, *, tool: str | None = None
) -> AsyncGenerator[Crash]:
    """Within the block, die at a boundary; the test goes on after the block.

    What the block executes on ``app`` has connections of its own to the ledger. At the boundary
    they are cut, the transaction that is open is undone, whatever the block has started is
    cancelled, and its workers' leases are over. Nothing more of it is written to the ledger, also
    not by ``finally`` blocks; what these, or a tool in a thread, do elsewhere they still do: for a
    process that does nothing more at all see `kill_at`. The next `drain` goes on with the runs.

    ::

        async with crash_at(app, "outcome:before", tool="charge_card"):
            await app.drain()
        await app.drain()

    Args:
        boundary: one of `durably.boundaries.NAMES`, or that the application has defined.
        nth: at the how-manieth time.
        tool: count only where it is about a call of this tool.

    Raises:
        AssertionError: the block ended, and the boundary was not reached; the message says which
            were.
        ConfigError: there is no such boundary; on PostgreSQL also for a worker with Oban in the
            block, whose connections cannot be cut.
    """
    boundaries.check(boundary)
    if nth < 1:
        raise ConfigError(f"nth={nth}: 1 is the first time that the boundary is reached.")
    life = Life(boundary, nth, tool)
    ledger = MortalLedger(app.ledger, life)
    crash = Crash(boundary, nth, tool, life)
    with boundaries.observing(life.observe), app.using(ledger):
        token = life.begin()
        try:
            yield crash
        except BaseException as error:
            if not life.ended_with(error):
                raise
        finally:
            life.leave(token)
            await life.reap()
            await ledger.cut()
    if not life.dead:
        raise AssertionError(not_reached(boundary, nth, tool, life.reached))
    await ledger.end_leases()


def not_reached(boundary: str, nth: int, tool: str | None, reached: Mapping[str, int]) -> str:
    """What to say of a boundary that was not reached."""
    where = f"{boundary!r} of tool {tool!r}" if tool else repr(boundary)
    times = f" for the {nth}. time" if nth > 1 else ""
    there = ", ".join(f"{name} ({count})" for name, count in reached.items()) or "none"
    return f"Nothing came to {where}{times}. Boundaries that were reached: {there}."
