"""The database goes away and comes back while runs are under way: no run, and no worker, minds."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from faults.site import EVERYTHING, Site, in_thread
from matrix.record import proved

pytestmark = pytest.mark.timeout(1800)

ROUNDS = 12 if EVERYTHING else 1

LEASE_SECONDS = 30.0
SHORT_LEASE_SECONDS = 1.0

LEASES = pytest.mark.parametrize(
    "lease_seconds", [pytest.param(LEASE_SECONDS, marks=pytest.mark.longer), SHORT_LEASE_SECONDS]
)
"""An outage that every lease outlives, and one that none does."""


@LEASES
async def test_server_that_restarts_at_once_costs_no_run(site: Site, lease_seconds: float) -> None:
    for _ in range(2):
        site.start_worker(lease=lease_seconds)
    async with site.load() as load:
        for _ in range(ROUNDS):
            await load.progress(random.randint(5, 15))
            await in_thread(site.server.restart, "immediate")
            await load.recovery("restarted")
        await load.progress(10)
    proved(
        "database killed and restarted",
        moment="any",
        policy="all",
        database="postgres",
        times=ROUNDS,
    )


@pytest.mark.longer
async def test_server_that_is_away_for_several_leases_costs_no_run(site: Site) -> None:
    for _ in range(2):
        site.start_worker(lease=SHORT_LEASE_SECONDS)
    async with site.load() as load:
        await load.progress(5)
        await in_thread(_away_for, site, site.stretched(4 * SHORT_LEASE_SECONDS))
        await load.recovery("back")
        await load.progress(10)
    proved(
        "database killed and restarted",
        moment="any, away for several leases",
        policy="all",
        database="postgres",
    )


def _away_for(site: Site, seconds: float) -> None:
    site.server.stop("immediate")
    time.sleep(seconds)
    site.server.start()


@LEASES
async def test_server_that_hangs_for_several_leases_costs_no_run(
    site: Site, lease_seconds: float
) -> None:
    """It takes connections, and answers nothing."""
    for _ in range(2):
        site.start_worker(lease=lease_seconds)
    async with site.load() as load:
        for _ in range(ROUNDS):
            await load.progress(random.randint(5, 15))
            await in_thread(_frozen_for, site, site.stretched(3.0))
            await load.recovery("answers again")
        await load.progress(10)
    proved("database hangs", moment="any", policy="all", database="postgres", times=ROUNDS)


def _frozen_for(site: Site, seconds: float) -> None:
    with site.server.frozen():
        time.sleep(seconds)


@pytest.mark.longer
async def test_connections_that_are_cut_again_and_again_cost_no_run(site: Site) -> None:
    for _ in range(2):
        site.start_worker(lease=LEASE_SECONDS)
    async with site.load() as load:
        for _ in range(5 * ROUNDS):
            await in_thread(_cut_all, site)
            await load.recovery("cut")
        await load.progress(10)
    proved("connection cut", moment="any", policy="all", database="postgres", times=5 * ROUNDS)


def _cut_all(site: Site) -> None:
    cut = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    assert site.database.rows(cut)[0]["count"] > 0, "they are connected"


@LEASES
async def test_server_without_a_free_connection_costs_no_run(
    site: Site, lease_seconds: float
) -> None:
    """Somebody else has them all, also while a new worker starts."""
    site.start_worker(lease=lease_seconds)
    async with site.load() as load:
        await load.progress(5)
        with _all_connections(site):
            new = site.start_command("--lease", f"{site.stretched(lease_seconds):g}")
            await in_thread(new.wait_to_say, "waiting up to 60 s to start")
            await in_thread(time.sleep, 2.0)
        await in_thread(new.wait_to_say, "serves agents=20")
        await load.progress(10)
    proved("no connection free", moment="any", policy="all", database="postgres")


@contextmanager
def _all_connections(site: Site) -> Iterator[None]:
    """Have every connection there is, while somebody else wants them too."""
    with ExitStack() as held:
        full_since = None
        while full_since is None or time.monotonic() - full_since < 1.0:
            try:
                connection = held.enter_context(psycopg.connect(site.server.url(), autocommit=True))
            except psycopg.OperationalError:
                full_since = full_since or time.monotonic()
                continue
            full_since = None
            cut = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = "
                "'client backend' AND application_name LIKE 'durably%'"
            )
            connection.execute(cut)
        yield


@pytest.mark.longer
async def test_worker_started_while_the_server_is_away_waits_for_it(site: Site) -> None:
    async with site.load() as load:
        site.server.stop()
        early = site.start_command()
        await in_thread(early.wait_to_say, "waiting up to 60 s to start")
        await in_thread(site.server.start)
        await load.progress(5)
    proved(
        "database killed and restarted", moment="a worker starts", policy="all", database="postgres"
    )


@pytest.mark.longer
def test_worker_that_waits_in_vain_says_so_and_ends(site: Site) -> None:
    site.server.stop()
    vain = site.start_command("--patience", "1")
    assert vain.process.wait(300) == 2
    assert "Error: postgresql://postgres@127.0.0.1" in vain.log.splitlines()[-1]
    assert "Traceback" not in vain.log


@pytest.mark.longer
def test_worker_told_to_leave_while_it_waits_leaves(site: Site) -> None:
    site.server.stop()
    early = site.start_command()
    early.wait_to_say("waiting up to 60 s to start")
    early.process.send_signal(signal.SIGTERM)
    assert early.process.wait(300) == 0


@pytest.mark.longer
async def test_worker_told_to_leave_while_the_server_is_away_leaves(site: Site) -> None:
    """What it has under way is nobody's by the end of its lease, and goes on then."""
    leaving = site.start_command("--lease", "1", "--grace", "0")
    async with site.load(person=True, blamed=True) as load:
        await load.progress(5)
        await in_thread(site.server.stop, "immediate")
        leaving.process.send_signal(signal.SIGTERM)
        assert await in_thread(leaving.process.wait, 300) == 0
        assert "Traceback" not in leaving.log
        site.forget(leaving)
        await in_thread(site.server.start)
        site.start_worker(lease=1.0)
        await load.progress(10)
    proved(
        "database killed and restarted", moment="a worker leaves", policy="all", database="postgres"
    )
