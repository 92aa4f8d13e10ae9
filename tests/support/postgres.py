"""Owns the fixtures that give a test its PostgreSQL; leaves what the tests of a run share to
`support.postgres_run`, and breaking a server to `support.postgres_server`."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.postgres_run import Postgres, Run
from support.postgres_server import PATIENCE_SECONDS, PostgresServer, open_to_all, remove

if TYPE_CHECKING:
    import psycopg

RUN = pytest.StashKey[Run]()

# --- the fixtures


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Postgres:
    """The run's shared server: nobody may stop it."""
    return request.config.stash[RUN].postgres


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A new, empty database."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def migrated_url(postgres: Postgres) -> Iterator[str]:
    """A new database with durably's tables in its schema `public`."""
    with postgres.database(template=postgres.migrated) as url:
        yield url


@pytest.fixture(scope="session")
def _used_url(postgres: Postgres) -> Iterator[str]:
    with postgres.database(template=postgres.migrated) as url:
        yield url


@pytest.fixture
def wiped_url(_used_url: str) -> str:
    """A database with durably's tables and nothing in them, ten times as fast as `migrated_url`.

    Earlier tests have used it and later ones will: its tables stay as they are.
    """
    wipe(_used_url)
    return _used_url


@pytest.fixture
def own_postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of the test's own, running, to be broken in any way."""
    server = request.config.stash[RUN].new_server("own")
    server.start()
    yield server
    for folder in server.folder.parent.glob(f"{server.folder.name}*"):
        remove(folder)  # the server and its clones


def wipe(url: str) -> None:
    """Delete all rows of a database, and end the sessions that earlier tests left there."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        _end_other_sessions(connection)
        tables = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
            "WHERE schemaname = 'public' AND tablename <> 'durably_schema'"
        ).fetchall()
        # Quicker than TRUNCATE, which makes new files.
        connection.execute("; ".join(f"DELETE FROM {table}" for (table,) in tables).encode())
        connection.execute(
            "SELECT setval(format('%I.%I', schemaname, sequencename), start_value, false) "
            "FROM pg_sequences"
        )


def _end_other_sessions(connection: psycopg.Connection[Any]) -> None:
    """And wait until they are gone: most are going already, within a millisecond or two, which
    `pg_terminate_backend` with a timeout would sleep a tenth of a second for."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    ).fetchall():
        if time.monotonic() > give_up_at:
            raise RuntimeError("sessions of an earlier test do not end")
        time.sleep(0.002)


# --- what the processes of a run are told


def pytest_configure(config: pytest.Config) -> None:
    if (shared := getattr(config, "workerinput", None)) is not None:
        config.stash[RUN] = Run(Path(shared["postgres_folder"]), shared["postgres_pid"])
    else:
        name = f"durably-test-{secrets.token_hex(4)}"
        config.stash[RUN] = Run(folder_for_all() / name, os.getpid())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    run: Run = node.config.stash[RUN]
    node.workerinput |= {"postgres_folder": str(run.folder), "postgres_pid": run.pid}


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and RUN in config.stash:
        config.stash[RUN].clean()


def folder_for_all() -> Path:
    """Where temporary folders go, and where also the account that servers run under gets at."""
    folders = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    return next((folder for folder in folders if open_to_all(folder)), folders[0]).resolve()
