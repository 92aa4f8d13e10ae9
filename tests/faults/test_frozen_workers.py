"""Workers that stand still, between statements too, and go on when others have taken over."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

import pytest

from crash.processes import eventually, is_stopped
from durably.ledger.postgres.connection import FROZEN_SECONDS
from faults import children, shift
from faults.site import ALONE, EVERYTHING, Site, in_thread
from matrix.record import proved

pytestmark = pytest.mark.timeout(1800)

ROUNDS = 8 if EVERYTHING else 1
LEASE_SECONDS = 1.0


async def test_workers_frozen_past_their_lease_cost_no_run(site: Site) -> None:
    # Frozen after its last look, a tool goes on where it was: only a person can know then that it
    # will still act, or the service, by the idempotency key. Nobody reconciles too early here.
    site.at_most_once = tuple(tool for tool in shift.AT_MOST_ONCE if tool != "ship")
    workers = [site.start_worker(lease=LEASE_SECONDS) for _ in range(2)]
    async with site.load(blamed=True) as load:
        for turn in range(ROUNDS):
            await load.progress(5)
            frozen = workers[turn % 2]
            site.send(frozen, signal.SIGSTOP)
            await load.progress(5)  # The other one works.
            await asyncio.sleep(site.stretched(2 * LEASE_SECONDS))
            site.send(frozen, signal.SIGCONT)
        await load.progress(10)
    proved(
        "machine frozen past the lease",
        moment="any",
        policy="all",
        database="postgres",
        times=ROUNDS,
    )


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(children.frozen_while_writing, id="write", marks=pytest.mark.longer),
        pytest.param(children.frozen_while_fetching, id="fetch"),
    ],
)
async def test_worker_frozen_in_a_transaction_holds_its_run_for_a_moment_only(
    site: Site, life: Callable[..., None]
) -> None:
    frozen = site.start_worker(life, lease=LEASE_SECONDS, **ALONE)
    async with shift.app(site.world) as app:
        run = await app.enqueue("clerk", "r", key="r")
        await in_thread(eventually, "frozen", lambda: is_stopped(frozen))
        started = time.monotonic()
        # What has written something; one that only reads holds nobody up, however long.
        idle = (
            "SELECT 1 FROM pg_stat_activity "
            "WHERE state = 'idle in transaction' AND backend_xid IS NOT NULL"
        )
        assert site.database.rows(idle), "it stands in the middle of a transaction"
        other = await in_thread(site.start_worker, lease=LEASE_SECONDS, **ALONE)
        await in_thread(eventually, "ended by the server", lambda: not site.database.rows(idle))
        ended = time.monotonic() - started
        assert await run.result(timeout=300) == "All is well."
        seconds = time.monotonic() - started
        print(f"the server ended it after {ended:.1f} s, the run's end came after {seconds:.1f} s")
        assert ended > FROZEN_SECONDS - 1
        site.send(frozen, signal.SIGCONT)
        # It is as good as any other.
        other.kill()
        site.forget(other)
        assert await (await app.enqueue("clerk", "s", key="s")).result(timeout=300)
    proved(
        "machine frozen past the lease",
        moment="in the middle of a transaction",
        policy="all",
        database="postgres",
    )
