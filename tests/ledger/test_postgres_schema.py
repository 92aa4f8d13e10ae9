"""Tables on PostgreSQL: made by nobody but `migrate`, which leaves alone what is not its own."""

from __future__ import annotations

import asyncio
import re
import subprocess
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from oban.schema import install_sql
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from durably import Durably
from durably.errors import ConfigError, DurablyError, SchemaError
from durably.ledger import attempts, queues, reads, runs, schema
from durably.ledger.postgres import hearing
from durably.ledger.postgres.database import PostgresDatabase
from durably.ledger.postgres.schema import needed_script
from durably.ledger.postgres.url import PostgresUrl
from durably.ledger.written import Step
from durably.records import FindingStatus
from support import elixir_oban
from support.ledgers import PATIENCE_SECONDS, new_run
from support.postgres_run import Postgres
from support.postgres_server import programs
from support.processes import all_at_once
from support.roles import PASSWORD, role

NEWEST = schema.newest_version("postgres")

clerk = Agent(TestModel(custom_output_text="ok"), name="clerk")

SECOND = """
-- A column that tells, and a table with a trigger.
ALTER TABLE durably_workers ADD COLUMN note text;
CREATE TABLE durably_notes (id bigint PRIMARY KEY, note text);
CREATE FUNCTION durably_noted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE durably_workers SET note = new.note; RETURN new;
END $$;
CREATE TRIGGER durably_noted AFTER INSERT ON durably_notes
FOR EACH ROW EXECUTE FUNCTION durably_noted();
"""


def execute(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements, each in its own transaction; what the last one returned."""
    rows: list[tuple[Any, ...]] = []
    with psycopg.connect(PostgresUrl.parse(url).conninfo, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
    return rows


@asynccontextmanager
async def opened(url: str, *, migrate: bool = False) -> AsyncGenerator[PostgresDatabase]:
    database = PostgresDatabase(url)
    try:
        await (database.migrate() if migrate else database.open())
        yield database
    finally:
        await database.close()


async def migrated(url: str) -> PostgresDatabase:
    """What `migrate` did, in the attributes of a database that is closed again."""
    async with opened(url, migrate=True) as database:
        return database


def tables_of(url: str, name: str = "public") -> set[tuple[Any, ...]]:
    """Every column, constraint, index, function and trigger of the ledger, as the server has it."""
    found = execute(
        url,
        f"SET search_path = {name}",
        f"""
SELECT 'column', table_name, column_name, data_type, is_nullable, column_default, is_identity
FROM information_schema.columns WHERE table_schema = '{name}' AND table_name LIKE 'durably%'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid),
                 '', '', ''
FROM pg_constraint WHERE connamespace = '{name}'::regnamespace AND conname LIKE 'durably%'
UNION ALL SELECT 'index', tablename, indexname, indexdef, '', '', ''
FROM pg_indexes WHERE schemaname = '{name}' AND tablename LIKE 'durably%'
UNION ALL SELECT 'function', proname, '', pg_get_functiondef(oid), '', '', ''
FROM pg_proc WHERE pronamespace = '{name}'::regnamespace AND proname LIKE 'durably%'
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), '', '', ''
FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE 'durably%'
UNION ALL SELECT 'options', relname, array_to_string(reloptions, ','), '', '', '', ''
FROM pg_class WHERE relnamespace = '{name}'::regnamespace AND relname LIKE 'durably%'
""",
    )
    assert found
    return set(found)


def migrate_one_by_one(url: str, upto: int = NEWEST) -> None:
    """A ledger as it has come about over the years: each migration in its turn."""
    scripts = [text for version, text in schema.migrations("postgres") if version <= upto]
    execute(
        url,
        install_sql(),
        "CREATE TABLE durably_schema (version integer PRIMARY KEY, ledger_id uuid NOT NULL, "
        "applied_at timestamptz NOT NULL)",
        *scripts,
        f"INSERT INTO durably_schema SELECT {upto}, gen_random_uuid(), now()",
    )


def version_of(url: str) -> int:
    return execute(url, "SELECT max(version) FROM durably_schema")[0][0]


def set_version(url: str, version: int) -> None:
    execute(url, f"UPDATE durably_schema SET version = {version}")


# --- migrations


@pytest.mark.parametrize("version", range(NEWEST + 1))
async def test_ledger_of_any_older_version_is_upgraded(
    database_url: str, migrated_url: str, version: int
) -> None:
    """From nothing, too; and the migrations make what the whole schema says."""
    if version:
        migrate_one_by_one(database_url, upto=version)
    await migrated(database_url)
    assert tables_of(database_url) == tables_of(migrated_url)
    assert version_of(database_url) == NEWEST


def test_migrations_are_numbered_without_gaps() -> None:
    versions = [version for version, _ in schema.migrations("postgres")]
    assert versions == list(range(1, NEWEST + 1))


async def test_next_migration_keeps_what_is_there(
    migrated_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machinery for migrations to come, with one that does not exist yet."""
    async with opened(migrated_url) as database:
        await database.write(runs.insert, new_run("kept"))
    identity = execute(migrated_url, "SELECT ledger_id FROM durably_schema")
    add_migration(monkeypatch, SECOND)
    async with opened(migrated_url, migrate=True) as database:
        assert (await database.read(reads.get_run, "kept")).key == "kept"
        assert (database.versions, database.oban_tables) == ((NEWEST, NEWEST + 1), "unchanged")
    assert version_of(migrated_url) == NEWEST + 1
    await migrated(database_url)
    assert tables_of(migrated_url) == tables_of(database_url)
    now = execute(migrated_url, "SELECT DISTINCT ledger_id FROM durably_schema")
    assert now == identity, "it is the same ledger"


async def test_migration_that_fails_changes_nothing(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tables_of(migrated_url)
    add_migration(monkeypatch, SECOND + "ALTER TABLE nobody ADD COLUMN x text;\n")
    with pytest.raises(SchemaError, match="nobody"):
        await migrated(migrated_url)
    assert tables_of(migrated_url) == before
    assert version_of(migrated_url) == NEWEST


def add_migration(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    known, whole = schema.migrations("postgres"), schema.current_schema("postgres")
    monkeypatch.setattr(schema, "migrations", lambda _: [*known, (NEWEST + 1, script)])
    monkeypatch.setattr(schema, "current_schema", lambda _: whole + script)


async def test_processes_that_migrate_at_once_all_succeed(database_url: str) -> None:
    done = await asyncio.to_thread(all_at_once, database_url, [("migrate",)] * 4)
    assert done == [True] * 4
    assert execute(database_url, "SELECT count(*) FROM durably_schema") == [(1,)]


async def test_migrating_again_locks_and_changes_nothing(migrated_url: str) -> None:
    """While workers write, and somebody has a transaction open."""
    with psycopg.connect(migrated_url) as busy:
        busy.execute("LOCK TABLE oban_jobs, durably_runs IN ROW EXCLUSIVE MODE")
        database = await asyncio.wait_for(migrated(migrated_url), PATIENCE_SECONDS)
    assert (database.versions, database.oban_tables) == ((NEWEST, NEWEST), "unchanged")


# --- what opening finds


async def refused_to_open(url: str) -> str:
    """What opening says, having changed nothing."""
    everything = "SELECT oid, relname FROM pg_class ORDER BY 1"
    before = execute(url, everything)
    with pytest.raises(SchemaError) as refused:
        async with opened(url):
            pass
    assert execute(url, everything) == before
    assert "\n" not in str(refused.value)
    return str(refused.value)


async def test_database_without_a_ledger_is_refused(database_url: str) -> None:
    assert await refused_to_open(database_url) == (
        f"There is no ledger at {database_url}: check the URL, or create it with `durably migrate`."
    )
    elsewhere = f"{database_url}?schema=agents"
    assert f"There is no ledger at {elsewhere}: " in await refused_to_open(elsewhere)


async def test_older_ledger_is_refused(migrated_url: str) -> None:
    set_version(migrated_url, NEWEST - 1)
    if NEWEST == 1:  # whatever 0 is, it is older
        execute(migrated_url, "UPDATE durably_schema SET version = -1")
    said = await refused_to_open(migrated_url)
    assert said.endswith(f"this version of durably needs {NEWEST}: run `durably migrate`.")


async def test_newer_ledger_is_refused(migrated_url: str) -> None:
    set_version(migrated_url, NEWEST + 1)
    said = (
        f"{migrated_url} was written by a newer durably (schema {NEWEST + 1}; this version knows "
        f"{NEWEST}). Upgrade durably here before using it."
    )
    assert await refused_to_open(migrated_url) == said
    with pytest.raises(SchemaError) as refused:
        await migrated(migrated_url)
    assert str(refused.value) == said


async def test_ledger_whose_tables_were_dropped_says_so(migrated_url: str) -> None:
    async with opened(migrated_url) as database:
        execute(migrated_url, "DROP TABLE durably_events")
        with pytest.raises(SchemaError, match="has no durably tables as they should be"):
            await database.write(runs.insert, new_run("r"))


async def test_ledger_that_is_upgraded_while_it_is_open_goes_on(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was prepared before returns other columns now: each connection is made anew."""
    async with opened(migrated_url) as database:
        for n in range(12):  # more often than it takes psycopg to prepare a statement
            await database.write(runs.insert, new_run(f"r{n}"))
            await database.read(reads.get_run, f"r{n}")
        add_migration(monkeypatch, "ALTER TABLE durably_runs ADD COLUMN note text;")
        await migrated(migrated_url)
        for n in range(12, 24):
            await database.write(runs.insert, new_run(f"r{n}"))
            await database.read(reads.get_run, f"r{n}")


# --- servers and databases that will not do


async def test_database_that_cannot_hold_every_text_is_refused(postgres: Postgres) -> None:
    name = "durably_latin"
    execute(postgres.url, f"DROP DATABASE IF EXISTS {name}")
    execute(postgres.url, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1'")
    try:
        with pytest.raises(SchemaError, match="is encoded as LATIN1"):
            await migrated(postgres.url_of(name))
    finally:
        execute(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


# --- Oban's tables


async def test_tables_that_an_older_oban_made_are_completed(database_url: str) -> None:
    """With a job in them; Oban for Python 0.7 made these, then lost some."""
    execute(
        database_url,
        install_sql(),
        "INSERT INTO oban_jobs (worker, args) VALUES ('theirs', '{\"a\": 1}')",
        "DROP TABLE oban_producers",
        "DROP INDEX oban_jobs_staging_index",
        "DROP FUNCTION oban_count_estimate",
    )
    async with opened(database_url, migrate=True) as database:
        assert database.oban_tables == "completed"
        await database.write(runs.insert, new_run("mine"))
    jobs = execute(database_url, "SELECT worker, args ->> 'key' FROM oban_jobs ORDER BY id")
    assert jobs == [("theirs", None), ("durably.RunAgent", "mine")]
    assert (await migrated(database_url)).oban_tables == "unchanged"


@pytest.mark.parametrize("version", [12, 13, 14])
@pytest.mark.parametrize("name", ["public", "agents"])
async def test_tables_that_elixirs_oban_made_are_completed(
    database_url: str, version: int, name: str
) -> None:
    url = f"{database_url}?schema={name}"
    execute(
        database_url,
        elixir_oban.tables(version, name),
        f"INSERT INTO {name}.oban_jobs (worker, args) VALUES ('Their.Worker', '{{}}')",
    )
    async with opened(url, migrate=True) as database:
        assert database.oban_tables == "completed"
        run, _ = await database.write(runs.insert, new_run("mine", priority=9))
        await database.write(runs.cancel, run.key, "me")
    jobs = execute(database_url, f"SELECT worker, state::text FROM {name}.oban_jobs ORDER BY id")
    assert jobs == [("Their.Worker", "available"), ("durably.RunAgent", "cancelled")]
    noted = f"SELECT obj_description('{name}.oban_jobs'::regclass, 'pg_class')"
    assert execute(database_url, noted) == [(str(version),)], "Elixir's own note of its version"
    assert (await migrated(url)).oban_tables == "unchanged"
    async with Durably(url, agents=[clerk]) as app, app.worker():
        enqueued = await app.enqueue(clerk, "hello")
        assert await enqueued.result(timeout=PATIENCE_SECONDS) == "ok"


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (elixir_oban.tables(11), "takes no priority above 3"),
        (elixir_oban.tables() + "ALTER TABLE oban_jobs DROP meta;", "has no column meta"),
    ],
)
async def test_tables_of_an_oban_that_is_too_old_are_refused(
    database_url: str, statement: str, what: str
) -> None:
    execute(database_url, statement)
    with pytest.raises(SchemaError) as refused:
        await migrated(database_url)
    assert str(refused.value) == (
        f"{database_url}: the oban_jobs that is there {what}; bring Oban's tables to its version "
        "12 with its own migrations first, then run `durably migrate` again."
    )
    assert "durably" not in str(execute(database_url, "SELECT relname FROM pg_class"))


# --- schemas


async def test_two_applications_in_two_schemas_do_not_meet(database_url: str) -> None:
    """Neither in their runs and queues, nor in Oban's tables."""
    urls = [f"{database_url}?schema={name}" for name in ("one", "two")]
    async with opened(urls[0], migrate=True) as one, opened(urls[1], migrate=True) as two:
        for database in (one, two):
            assert (await database.write(runs.insert, new_run("k")))[1]
        await one.write(queues.pause, "agents")
        assert await one.write(attempts.claim, "w", "agents", 10) == []
        (claimed,) = await two.write(attempts.claim, "w", "agents", 10)
        await two.write(attempts.complete, claimed.claim, '"x"', Step())
        assert (await one.read(reads.get_run, "k")).state == "available"
    for name in ("one", "two"):
        assert execute(database_url, f"SELECT count(*) FROM {name}.oban_jobs") == [(1,)]
    ids = "SELECT ledger_id FROM one.durably_schema UNION SELECT ledger_id FROM two.durably_schema"
    assert len(execute(database_url, ids)) == 2
    assert execute(database_url, "SELECT relname FROM pg_class WHERE relnamespace = 2200") == []


async def test_notices_of_one_schema_are_not_heard_in_another(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "POLL_SECONDS", 3600.0)
    urls = [f"{database_url}?schema={name}" for name in ("one", "two")]
    heard = threading.Event()
    async with opened(urls[0], migrate=True) as one, opened(urls[1], migrate=True) as two:
        with psycopg.connect(database_url, autocommit=True) as witness, two.subscribe(heard.set):
            assert await asyncio.to_thread(heard.wait, PATIENCE_SECONDS), "the first look"
            heard.clear()
            witness.execute('LISTEN "one.durably"')
            await one.write(runs.insert, new_run("r"))
            told = witness.notifies(timeout=PATIENCE_SECONDS, stop_after=1)
            assert len(await asyncio.to_thread(list, told)) == 1
            assert not heard.is_set()
            async with opened(urls[1]) as other:
                await other.write(runs.insert, new_run("r"))
            assert await asyncio.to_thread(heard.wait, PATIENCE_SECONDS)


@pytest.mark.parametrize(
    "name",
    ["", "Agents", "my-agents", "1st", "a" * 49, 'a"; DROP TABLE x; --', "a.b", "pg_mine", "a b"],
)
def test_schema_that_cannot_be_named_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="small letters, digits and underscores"):
        PostgresUrl.parse(f"postgresql://localhost/db?schema={name}")


def test_schema_that_is_a_word_of_sql_is_refused(database_url: str) -> None:
    """Oban writes it without quotes; every such word that this server knows."""
    words = execute(database_url, "SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'T')")
    for (word,) in words:
        with pytest.raises(ConfigError, match="is a word of SQL's own"):
            PostgresUrl.parse(f"postgresql://localhost/db?schema={word}")


async def test_schema_with_the_longest_name_works(database_url: str) -> None:
    """Its channels' names are longer still."""
    url = f"{database_url}?schema={'a' * 48}"
    async with opened(url, migrate=True) as database, opened(url) as other:
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()
        with database.subscribe(lambda: loop.call_soon_threadsafe(heard.set)):
            await other.write(runs.insert, new_run("r"))
            await asyncio.wait_for(heard.wait(), PATIENCE_SECONDS)


# --- rights


DOCS = Path(__file__).parents[2] / "docs" / "postgres.md"


def grants_in_the_docs() -> str:
    """For an application whose schema is called `support`."""
    section = DOCS.read_text().partition("\n## Roles\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    return block.replace("SCHEMA public", "SCHEMA support")


async def test_role_with_the_rights_in_the_docs_can_do_all_but_migrate(
    database_url: str,
) -> None:
    url = f"{database_url}?schema=support"
    await migrated(url)
    with role(url, "support_app", grants_in_the_docs()) as as_role:
        async with opened(as_role) as database:
            run, _ = await database.write(runs.insert, new_run("r"))
            (run,) = await database.write(attempts.claim, "w", "agents", 10)
            await database.write(attempts.complete, run.claim, '"x"', Step())
            assert await database.write(runs.prune, -60.0, None, 10) == 1
            findings = await database.examine()
        async with Durably(as_role, agents=[clerk]) as app, app.worker():
            enqueued = await app.enqueue(clerk, "hello")
            assert await enqueued.result(timeout=PATIENCE_SECONDS) == "ok"
        assert {f.status for f in findings} <= {FindingStatus.OK}, findings
        await migrated(as_role)  # nothing to do
        execute(url, "DROP TABLE support.oban_producers")
        with pytest.raises(DurablyError, match=r"permission denied|must be owner") as refused:
            await migrated(as_role)
        assert PASSWORD not in str(refused.value)


async def test_role_without_rights_is_told_so(migrated_url: str) -> None:
    with role(migrated_url, "nobody_app", "") as as_role:
        with pytest.raises(DurablyError, match="cannot be used by this user: permission denied"):
            async with opened(as_role):
                pass
        (problem,) = [
            f
            for f in await PostgresDatabase(as_role).examine()
            if f.status is FindingStatus.PROBLEM
        ]
        assert "permission denied" in problem.text


# --- scripts


def psql(url: str, script: str, path: Path) -> subprocess.CompletedProcess[str]:
    path.write_text(script)
    command = [programs() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", path]
    conninfo = PostgresUrl.parse(url).conninfo
    return subprocess.run([*command, conninfo], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["public", "agents"])
async def test_script_makes_what_migrate_makes(
    database_url: str, migrated_url: str, tmp_path: Path, name: str
) -> None:
    url = f"{database_url}?schema={name}"
    script = needed_script(PostgresUrl.parse(url))
    ran = psql(url, script, tmp_path / "migrate.sql")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    if name == "public":
        assert tables_of(url) == tables_of(migrated_url)
    assert {f.status for f in await PostgresDatabase(url).examine()} == {FindingStatus.OK}
    assert (await migrated(url)).oban_tables == "unchanged"

    again = psql(url, script, tmp_path / "migrate.sql")
    assert again.returncode != 0
    assert "There is a ledger already" in again.stderr
    assert needed_script(PostgresUrl.parse(url)) == f"-- {url}: schema {NEWEST}, nothing to do.\n"


async def test_script_from_a_version_needs_no_server_and_fits_only_that_version(
    migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = PostgresUrl.parse("postgresql://nobody@nowhere.invalid/db")
    add_migration(monkeypatch, SECOND)
    script = needed_script(nowhere, NEWEST)
    ran = psql(migrated_url, script, tmp_path / "migrate.sql")
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert version_of(migrated_url) == NEWEST + 1
    assert "durably_notes" in str(tables_of(migrated_url))
    again = psql(migrated_url, script, tmp_path / "migrate.sql")
    assert f"This is not schema {NEWEST} of the ledger" in again.stderr
    assert needed_script(nowhere, NEWEST + 1).startswith("-- ")
    for version in (-1, NEWEST + 2):
        with pytest.raises(ConfigError, match=f"There is no schema {version}: from 0"):
            needed_script(nowhere, version)


def test_script_runs_through_psycopg_as_well(database_url: str) -> None:
    execute(database_url, needed_script(PostgresUrl.parse(database_url)))
    assert version_of(database_url) == NEWEST
    execute(database_url, "DROP TABLE oban_leaders")
    script = needed_script(PostgresUrl.parse(database_url))
    assert "durably_runs" not in script
    execute(database_url, script)
    assert "nothing to do" in needed_script(PostgresUrl.parse(database_url))


# --- URLs


@pytest.mark.parametrize(
    ("url", "conninfo", "shown"),
    [
        ("postgresql:///db", "postgresql:///db", "postgresql:///db"),
        ("postgres://u@h/db?schema=s", "postgresql://u@h/db", "postgresql://u@h/db?schema=s"),
        (
            "postgresql+psycopg://u:p%40%2F@h1:5,h2/db?notify=off&sslmode=require",
            "postgresql://u:p%40%2F@h1:5,h2/db?sslmode=require",
            "postgresql://u@h1:5,h2/db?sslmode=require",
        ),
        (
            "postgresql:///db?host=/run/pg&password=p&user=u",
            "postgresql:///db?host=%2Frun%2Fpg&password=p&user=u",
            "postgresql:///db?host=/run/pg&user=u",
        ),
        ("postgresql://u:a#b@h/db", "postgresql://u:a#b@h/db", "postgresql://u@h/db"),
        ("postgresql://h/a%0Ab", "postgresql://h/a%0Ab", "postgresql://h/a%0Ab"),
    ],
)
def test_url_is_passed_on_whole_and_shown_without_its_password(
    url: str, conninfo: str, shown: str
) -> None:
    where = PostgresUrl.parse(url)
    assert (where.conninfo, where.shown) == (conninfo, shown)
    assert "p%40" not in repr(where)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret/x@h/db",
        "postgresql://u:secret%zz@h/db",
        "postgresql://u:secret@h:port/db?nonsense=1",
        "postgresql://u:secret@[h/db",
        "postgresql://h/db?password=secret&nonsense=1",
    ],
)
def test_url_that_cannot_be_understood_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        PostgresUrl.parse(url)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("pool_size=0", "pool_size='0': a number from 1 to 64."),
        ("pool_size=many", "pool_size='many': a number"),
        ("notify=no", "notify='no': on or off."),
        ("prepare=", "prepare='': on or off."),
        ("nonsense=1", 'invalid URI query parameter: "nonsense"'),
    ],
)
def test_parameter_that_cannot_be_is_refused(query: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        PostgresUrl.parse(f"postgresql://h/db?{query}")
