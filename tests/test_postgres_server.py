"""The promises of the tests' own PostgreSQL: others' tests stand on it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from durably.errors import SchemaError
from durably.ledger.connect import database_for
from support.postgres_run import Postgres
from support.postgres_server import PostgresServer
from support.sample import longer

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 120.0


def execute(url: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


# --- one server for all, a database for each


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_finds_a_new_empty_database(database_url: str, turn: int) -> None:
    execute(database_url, "CREATE TABLE mine (turn int)")


async def test_a_migrated_database_takes_a_ledger_at_once(
    migrated_url: str, database_url: str
) -> None:
    ledger, none = database_for(migrated_url), database_for(database_url)
    await ledger.open()
    await ledger.close()
    with pytest.raises(SchemaError):
        await none.open()
    await none.close()


def test_a_database_is_dropped_though_somebody_still_uses_it(postgres: Postgres) -> None:
    with postgres.database() as url:
        held = psycopg.connect(url)
    with held, pytest.raises(psycopg.OperationalError):
        held.execute("SELECT 1")
    names = {name for (name,) in execute(postgres.url, "SELECT datname FROM pg_database")}
    assert url.rpartition("/")[2] not in names


def test_what_is_committed_is_on_disk(own_postgres: PostgresServer) -> None:
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert execute(own_postgres.url(), f"SHOW {setting}") == [("on",)]


# --- a server of a test's own


@pytest.mark.parametrize("end", ["fast", "immediate", "kill"])
def test_a_server_comes_back_where_it_was_with_what_was_committed(
    own_postgres: PostgresServer, end: str
) -> None:
    url = own_postgres.url()
    execute(url, "CREATE TABLE kept AS SELECT 1 AS it")
    held = psycopg.connect(url)
    if end == "kill":
        own_postgres.kill()
    else:
        own_postgres.stop(end)  # type: ignore
    assert not own_postgres.running
    with pytest.raises(psycopg.OperationalError):
        held.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    own_postgres.start()
    assert execute(url, "SELECT it FROM kept") == [(1,)]


def test_a_killed_server_leaves_no_process(own_postgres: PostgresServer) -> None:
    def work() -> None:
        # So busy that it would not notice for long that the others are gone.
        with pytest.raises(psycopg.OperationalError):
            held.execute("SELECT count(*) FROM generate_series(1, 1e12::bigint)")

    held = psycopg.connect(own_postgres.url(), autocommit=True)
    busy = threading.Thread(target=work)
    busy.start()
    state = f"SELECT state FROM pg_stat_activity WHERE pid = {held.info.backend_pid}"
    until(lambda: execute(own_postgres.url(), state) == [("active",)])
    backend = psutil.Process(held.info.backend_pid)
    server = [backend, *psutil.Process(backend.ppid()).children()]
    own_postgres.kill()
    left = [process for process in server if alive(process)]
    for process in left:
        process.kill()
    busy.join(PATIENCE_SECONDS)
    assert not left


def test_a_copy_takes_the_place_of_its_server(own_postgres: PostgresServer) -> None:
    execute(own_postgres.url(), "CREATE TABLE copied AS SELECT 1 AS it")
    own_postgres.stop()
    copy = own_postgres.clone(port=own_postgres.port)
    own_postgres.start()
    execute(own_postgres.url(), "DROP TABLE copied")
    own_postgres.kill()
    copy.start()
    assert execute(own_postgres.url(), "SELECT it FROM copied") == [(1,)]
    copy.remove()
    assert not copy.running and not copy.folder.exists()


def test_a_frozen_server_answers_late(own_postgres: PostgresServer) -> None:
    answers: list[object] = []
    with psycopg.connect(own_postgres.url(), autocommit=True) as held:
        thread = threading.Thread(
            daemon=True, target=lambda: answers.append(held.execute("SELECT 1"))
        )
        with own_postgres.frozen():
            thread.start()
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(own_postgres.url(), connect_timeout=2)
            assert not answers
        thread.join(PATIENCE_SECONDS)
        assert answers


# --- whole runs of pytest

INNER_TESTS = """
import json, os, pathlib, time, pytest

HERE = pathlib.Path(__file__).parent

@pytest.mark.parametrize("turn", [1, 2])
def test_waits(database_url, own_postgres, turn):
    about = {"url": database_url, "folder": str(own_postgres.folder.parent)}
    (HERE / f"{turn}.new").write_text(json.dumps(about))
    (HERE / f"{turn}.new").rename(HERE / f"{turn}.json")
    while not (HERE / "fail").exists():
        time.sleep(0.05)
    pytest.fail("as it was told")
"""


class InnerRun:
    """A run of pytest whose tests hold a database and a server each until they are told to fail."""

    def __init__(self, here: Path, workers: int, server: str = "") -> None:
        self.here = here
        self._tests = max(workers, 1)
        (here / "test_inner.py").write_text(INNER_TESTS)
        paths = {"PYTHONPATH": str(ROOT / "tests"), "DURABLY_TEST_POSTGRES": server}
        with (here / "output").open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-p", "support.postgres", f"-n{workers}"],
                cwd=here,
                env=os.environ | paths,
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> "InnerRun":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def about(self) -> list[dict[str, str]]:
        """What its tests hold, once they do."""
        files = [self.here / f"{turn + 1}.json" for turn in range(self._tests)]
        until(lambda: all(file.exists() for file in files) or self.process.poll() is not None)
        assert self.process.poll() is None, (self.here / "output").read_text()
        return [json.loads(file.read_text()) for file in files]

    def end(self, number: signal.Signals | None) -> None:
        if number:
            self.process.send_signal(number)
        else:
            (self.here / "fail").touch()
        self.process.wait(PATIENCE_SECONDS)


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("end", "workers"),
    [(None, 2), longer(signal.SIGINT, 0), longer(signal.SIGTERM, 2), (signal.SIGKILL, 0)],
    ids=["failed", "SIGINT", "SIGTERM", "SIGKILL"],
)
def test_a_run_leaves_nothing_behind_however_it_ends(
    postgres: Postgres, tmp_path: Path, end: signal.Signals | None, workers: int
) -> None:
    with InnerRun(tmp_path, workers) as run:
        about = run.about()
        folder = Path(about[0]["folder"])
        servers = [
            psutil.Process(int(file.read_text().split()[0]))
            for file in folder.glob("*/data/postmaster.pid")
        ]
        assert all(map(alive, servers))
        # The shared one, and one for each test.
        assert len(servers) == 1 + len(about)
        assert len({urlsplit(each["url"]).port for each in about}) == 1
        run.end(end)
        until(lambda: not folder.exists() and not any(map(alive, servers)))
    # Runs side by side do not disturb one another.
    assert execute(postgres.url, "SELECT 1") == [(1,)]


def test_a_server_of_the_users_own_is_left_as_it_was(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    url = own_postgres.url()
    databases = execute(url, "SELECT datname FROM pg_database ORDER BY 1")
    with InnerRun(tmp_path, 0, server=url) as run:
        (about,) = run.about()
        name = urlsplit(about["url"]).path.removeprefix("/")
        assert about["url"] == own_postgres.url(name)
        assert (name,) in execute(url, "SELECT datname FROM pg_database")
        run.end(signal.SIGTERM)
        until(lambda: execute(url, "SELECT datname FROM pg_database ORDER BY 1") == databases)
        until(lambda: not Path(about["folder"]).exists())
