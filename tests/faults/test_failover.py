"""Another server takes the place of the one that workers and clients are connected to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crash.processes import Processes
from faults.site import EVERYTHING, Site, in_thread
from matrix.record import proved
from support.postgres_server import PostgresServer

pytestmark = pytest.mark.timeout(1800)

ROUNDS = 6 if EVERYTHING else 1


async def test_another_server_under_the_same_address_costs_no_run(site: Site) -> None:
    """As behind a name or a proxy that follows the one that takes writes."""
    for _ in range(2):
        site.start_worker()
    async with site.load() as load:
        for _ in range(ROUNDS):
            await load.progress(8)
            await in_thread(_replace, site, site.server.port)
            await load.recovery("replaced")
        await load.progress(10)
    proved(
        "another server takes over", moment="any", policy="all", database="postgres", times=ROUNDS
    )


def _replace(site: Site, port: int) -> PostgresServer:
    """Have another server with the same data take over; returns the one that is stopped."""
    old = site.server
    old.stop("immediate")
    new = old.clone(port=port)
    new.start()
    site.server = new
    return old


@pytest.fixture
def ports(own_postgres: PostgresServer) -> tuple[int, int]:
    """Where the server is, and where there is none yet."""
    own_postgres.stop()
    spare = own_postgres.clone()
    spare.remove()
    own_postgres.start()
    return own_postgres.port, spare.port


@pytest.fixture
def two_hosts(
    own_postgres: PostgresServer, ports: tuple[int, int], tmp_path: Path, processes: Processes
) -> Iterator[Site]:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    url = f"postgresql://postgres@{hosts}/postgres?connect_timeout=5"
    site = Site(own_postgres, tmp_path / "site", processes, url)
    yield site
    site.close()


def _read_only(old: PostgresServer) -> None:
    with (old.data / "postgresql.auto.conf").open("a") as settings:
        settings.write("default_transaction_read_only = on\n")


def _standby(old: PostgresServer) -> None:
    (old.data / "standby.signal").touch()


@pytest.mark.parametrize("demote", [_read_only, pytest.param(_standby, marks=pytest.mark.longer)])
async def test_failover_to_another_host_of_the_url_costs_no_run(
    two_hosts: Site, ports: tuple[int, int], demote: Callable[[PostgresServer], None]
) -> None:
    """The old server comes back, and only reads; nobody works with it."""
    site = two_hosts
    for _ in range(2):
        site.start_worker()
    async with site.load() as load:
        await load.progress(8)
        old = await in_thread(_replace, site, ports[1])
        await load.recovery("failed over")
        await load.progress(8)
        demote(old)
        await in_thread(old.start)
        await in_thread(site.server.restart, "immediate")
        await load.progress(8)
        # Every new connection asks the old server first: it is the first of the URL.
        new = await in_thread(site.start_worker)
        await load.progress(8)
    assert any(
        row["worker_id"].split(":")[1] == str(new.pid)
        for row in site.database.rows("SELECT worker_id FROM durably_attempts")
    )
    proved(
        "another server takes over",
        moment="any, the old one comes back",
        policy="all",
        database="postgres",
    )
