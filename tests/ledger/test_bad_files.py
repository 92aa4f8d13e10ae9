"""Files that cannot be used say so in one sentence; nothing is lost, and work goes on after."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from durably.errors import LedgerCorrupt, LedgerError, LedgerUnavailable
from durably.ledger import reads, runs
from durably.ledger.sqlite import connection as sqlite_connection
from durably.ledger.sqlite.database import SqliteDatabase
from support.held import HeldWriters
from support.ledgers import PATIENCE_SECONDS, Ledger, SqliteBackend, new_run, until
from support.processes import LedgerProcess

FULL_DISK = Path(__file__).parent.parent / "support" / "full_disk.py"


def refusal(path: Path) -> str:
    """What opening says, having refused and made nothing."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(LedgerError) as refused:
        SqliteDatabase(path).open_blocking()
    assert (path.read_bytes() if path.is_file() else None) == before
    assert "\n" not in str(refused.value)
    return f"{type(refused.value).__name__}: {refused.value}"


# --- what is no ledger


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "ledger.db"
    assert refusal(path) == (
        f"LedgerUnavailable: {path} cannot be opened: the folder {path.parent} does not exist."
    )


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    path = tmp_path / "file" / "ledger.db"
    assert refusal(path) == (
        f"LedgerUnavailable: {path} cannot be opened: {path.parent} is no folder."
    )


def test_path_of_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (f"LedgerUnavailable: {tmp_path} cannot be opened: it is a folder.")


@pytest.fixture
def shared_folder() -> Generator[Path]:
    """A folder that other users can reach, as pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder
        folder.chmod(0o777)


NOT_AS_ROOT = """
import os, sys
from durably.errors import LedgerError
from durably.ledger import runs
from durably.ledger.sqlite.database import SqliteDatabase
from durably.records import NewRun

path, scratch = sys.argv[1:]
SqliteDatabase(scratch).open_blocking()  # now everything is imported
if os.getuid() == 0:
    os.setuid(65534)
database = SqliteDatabase(path)
try:
    database.open_blocking()
    database.write_blocking(runs.insert, NewRun(key="r", agent="a", prompt="1"))
except LedgerError as error:
    print(f"{type(error).__name__}: {error}")
"""


def test_new_ledger_in_a_folder_that_may_not_be_written(
    shared_folder: Path, tmp_path: Path
) -> None:
    path = shared_folder / "ledger.db"
    shared_folder.chmod(0o555)
    said = run_python(NOT_AS_ROOT, path, tmp_path / "scratch.db")
    assert said == (
        f"LedgerUnavailable: {path} cannot be opened: check that it and its folder may be "
        "written, and that the disk is not full."
    )


@pytest.mark.parametrize("what", ["file", "folder"])
def test_ledger_that_may_not_be_written(shared_folder: Path, tmp_path: Path, what: str) -> None:
    path = shared_folder / "ledger.db"
    make(path)
    path.chmod(0o444 if what == "file" else 0o666)
    shared_folder.chmod(0o555 if what == "folder" else 0o777)
    said = run_python(NOT_AS_ROOT, path, tmp_path / "scratch.db")
    readonly = "attempt to write a readonly database"
    assert said == f"LedgerUnavailable: {path} cannot be written: {readonly}."


def make(path: Path, *keys: str) -> None:
    """A ledger that was closed properly, with these runs."""
    database = SqliteDatabase(path)
    database.open_blocking()
    for key in keys:
        database.write_blocking(runs.insert, new_run(key))
    database.close_blocking()


def run_python(script: str, *args: Path) -> str:
    """What a script prints."""
    command = [sys.executable, "-c", script, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "content",
    [b"hello", b"hello, world\n" * 1000, b"SQLite format 3\0", bytes(8192), b"\xff" * 20_000],
    ids=["one word", "text", "half a header", "zeros", "noise"],
)
def test_file_that_is_not_a_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    said = refusal(path)
    assert said.startswith(f"LedgerCorrupt: {path} is not a usable SQLite database: ")


def test_truncated_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    make(path, *(f"r{n}" for n in range(50)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said = refusal(path)
    assert said.startswith(f"LedgerCorrupt: {path} is not a usable SQLite database: ")


async def test_ledger_with_a_damaged_page_says_so_where_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    make(path, *(f"r{n}" for n in range(200)))
    damaged = bytearray(path.read_bytes())
    for page in range(4096 * 3, len(damaged), 4096):
        damaged[page : page + 200] = b"\xff" * 200
    path.write_bytes(damaged)
    database = SqliteDatabase(path)
    with pytest.raises(LedgerCorrupt, match="is not a usable SQLite database"):
        await database.open()
        await database.read(reads.list_runs, *[None] * 5, 1000)
    await database.close()


def test_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.touch()
    make(path, "r")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT key FROM durably_runs").fetchall() == [("r",)]


# --- deleted while in use


@pytest.mark.parametrize("replaced", [False, True], ids=["deleted", "replaced"])
async def test_ledger_deleted_while_in_use_takes_no_more_writes(
    ledger: Ledger, sqlite: SqliteBackend, replaced: bool
) -> None:
    """A write into a file that has no name any more would be acknowledged, and lost."""
    await ledger.insert("before")
    hidden = sqlite.path.with_suffix(".hidden")
    sqlite.path.rename(hidden)
    if replaced:
        sqlite.path.touch()
    with pytest.raises(LedgerUnavailable) as refused:
        await ledger.insert()
    assert str(refused.value) == (
        f"{sqlite.path} was deleted or replaced while it was open. Put the file back, or restart "
        "to use what is there now."
    )
    with pytest.raises(LedgerUnavailable, match="was deleted or replaced"):
        await ledger.read(reads.get_run, "before")
    with pytest.raises(LedgerUnavailable, match="was deleted or replaced"):
        ledger.database.transaction().begin()
    looked = threading.Event()
    with ledger.database.subscribe(looked.set):
        assert await asyncio.to_thread(looked.wait, PATIENCE_SECONDS)
    assert sqlite.path.exists() is replaced, "nothing is made in its place"

    hidden.rename(sqlite.path)
    await ledger.insert("after")
    assert set(sqlite.select("SELECT key FROM durably_runs")) == {("before",), ("after",)}


async def test_process_that_changes_its_folder_keeps_its_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = SqliteDatabase("ledger.db")
    await database.open()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    await database.write(runs.insert, new_run("r"))
    transaction = database.transaction()
    transaction.begin()
    transaction.rollback()
    await database.close()
    assert (tmp_path / "ledger.db").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


# --- full


async def test_full_file_takes_no_write_and_loses_none(
    ledger: Ledger, sqlite: SqliteBackend
) -> None:
    """SQLite's own limit, which answers as a full disk does."""
    connection = sqlite.writing
    for n in range(20):
        await ledger.insert(f"before {n}")
    before = ledger.dump()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    large = '"' + 1_000_000 * "x" + '"'
    for _ in range(2):
        with pytest.raises(LedgerUnavailable) as refused:
            await ledger.write(runs.insert, new_run("large", prompt=large))
        assert str(refused.value) == f"{sqlite.path}: the disk is full; nothing was written."
        assert ledger.dump() == before

    connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    await ledger.insert("large", prompt=large)
    assert len(ledger.dump()["runs"]) == 21


async def test_full_file_fails_every_write_of_the_batch_and_says_so(
    ledger: Ledger, sqlite: SqliteBackend
) -> None:
    """A full disk undoes the whole transaction, so nobody may be told that it was committed."""
    connection = sqlite.writing
    await ledger.insert("before")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    large = '"' + 1_000_000 * "x" + '"'
    async with HeldWriters(ledger):
        writing = [
            asyncio.create_task(ledger.write(runs.insert, new_run(key, prompt=prompt)))
            for key, prompt in (("small 1", '"x"'), ("large", large), ("small 2", '"x"'))
        ]
        await asyncio.sleep(0)
    told = await asyncio.gather(*writing, return_exceptions=True)
    acknowledged = {t[0].key for t in told if isinstance(t, tuple)}
    stored = {key for (key,) in sqlite.select("SELECT key FROM durably_runs")}
    assert isinstance(told[1], LedgerUnavailable)
    assert stored == acknowledged | {"before"}


async def test_work_goes_on_once_there_is_room_again(tmp_path: Path) -> None:
    """A tool has charged and its result cannot be written: it is kept, and written again.

    For real: the process may not let its files grow (``RLIMIT_FSIZE``), until it may.
    """
    path = tmp_path / "ledger.db"
    told = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(FULL_DISK), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    seen = json.loads(told.stdout)
    assert seen["refusals"] >= 3
    assert (seen["charges"], seen["output"], seen["attempts"]) == (1, "charged", 1)
    assert seen["effects"] == [["done", '{"return":{"return_value":"receipt"}}']]
    assert seen["refused"] == [
        f"{path} could not be read or written: disk I/O error (SQLITE_IOERR_WRITE); nothing was "
        "written. Is the disk full, or the file as large as it may be?"
    ]


# --- locked


async def test_write_waits_for_a_lock_that_outlasts_sqlites_own_patience(
    ledger: Ledger, sqlite: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite gives up after its busy timeout; the writer asks again, however often it takes."""
    monkeypatch.setattr(sqlite_connection, "BUSY_SECONDS", 0.05)
    refusals = _counting_refusals(monkeypatch)
    database = SqliteDatabase(sqlite.path)
    await database.open()
    with LedgerProcess("lock", sqlite.path) as process:
        assert await asyncio.to_thread(process.hear) == "ready"
        process.go()
        assert await asyncio.to_thread(process.hear) == "locked"
        writing = asyncio.create_task(database.write(runs.insert, new_run("r")))
        await until(lambda: len(refusals) >= 5, "SQLite has given up five times")
        assert not writing.done()
        process.go()
        assert await asyncio.to_thread(process.result) is True
    run, created = await writing
    assert (run.key, created) == ("r", True)
    await database.close()


async def test_reading_goes_on_while_another_process_holds_the_lock(
    ledger: Ledger, sqlite: SqliteBackend
) -> None:
    await ledger.insert("r")
    with LedgerProcess("lock", sqlite.path) as process:
        assert await asyncio.to_thread(process.hear) == "ready"
        process.go()
        assert await asyncio.to_thread(process.hear) == "locked"
        assert (await ledger.read(reads.get_run, "r")).key == "r"
        process.go()
        await asyncio.to_thread(process.result)


async def test_lock_that_is_never_released_is_said_and_loses_nothing(
    ledger: Ledger, sqlite: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_connection, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(sqlite_connection, "BEGIN_SECONDS", 0.1)
    database = SqliteDatabase(sqlite.path)
    await database.open()
    with LedgerProcess("lock", sqlite.path) as process:
        assert await asyncio.to_thread(process.hear) == "ready"
        process.go()
        assert await asyncio.to_thread(process.hear) == "locked"
        for _ in range(2):
            with pytest.raises(LedgerUnavailable) as refused:
                await database.write(runs.insert, new_run("r"))
            assert str(refused.value) == f"{sqlite.path} is locked by another process."
        process.go()
        await asyncio.to_thread(process.result)
    assert (await database.write(runs.insert, new_run("r")))[1]
    await database.close()


def _counting_refusals(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Error]:
    refusals: list[sqlite3.Error] = []
    real = sqlite_connection._is_busy  # pyright: ignore

    def counted(error: sqlite3.Error) -> bool:
        refusals.append(error)
        return real(error)

    monkeypatch.setattr(sqlite_connection, "_is_busy", counted)
    return refusals
