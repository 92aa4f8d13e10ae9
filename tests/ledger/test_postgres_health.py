"""What a look at a PostgreSQL ledger finds: each thing that may be wrong, in words that help."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
import pytest

from durably.ledger import schema
from durably.ledger.postgres import health
from durably.ledger.postgres.database import PostgresDatabase
from durably.records import Finding, FindingStatus
from support.pg_proxy import NOTIFICATION, PgProxy
from support.postgres_server import PostgresServer
from support.roles import PASSWORD, logged_in_as, role

OK, WARNING, PROBLEM = FindingStatus.OK, FindingStatus.WARNING, FindingStatus.PROBLEM
NEWEST = schema.newest_version("postgres")


async def examine(url: str) -> dict[str, Finding]:
    """The findings, by subject; where several are about one, the worst."""
    findings = await PostgresDatabase(url).examine()
    assert all("\n" not in finding.text for finding in findings)
    ranked = sorted(findings, key=lambda finding: (OK, WARNING, PROBLEM).index(finding.status))
    return {finding.subject: finding for finding in ranked}


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def test_ledger_that_is_as_it_should_be_has_no_problem(migrated_url: str) -> None:
    found = await examine(migrated_url)
    assert {finding.status for finding in found.values()} == {OK}
    assert found["PostgreSQL"].text[0].isdigit()
    assert found["durability"].text == "synchronous_commit=on"
    assert found["connections"].text.partition(" ")[0].isdigit()
    assert found["notices"].text.startswith("arrive, in ")
    assert found["ledger"].text == f"{migrated_url}, schema {NEWEST}"
    assert found["Oban"].text == "its tables are in schema public"


async def test_looking_changes_nothing(database_url: str) -> None:
    await examine(database_url)
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 2200")
        assert tables.fetchone() == (0,)


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_server_that_may_lose_commits_is_a_problem(
    own_postgres: PostgresServer, setting: str
) -> None:
    execute(own_postgres.url(), f"ALTER SYSTEM SET {setting} = off", "SELECT pg_reload_conf()")
    found = await examine(own_postgres.url())
    assert found["durability"] == Finding(
        "durability",
        PROBLEM,
        f"{setting}=off: a power cut could lose what was committed, or everything",
    )


async def test_commits_that_do_not_wait_are_made_to(migrated_url: str) -> None:
    name = migrated_url.rpartition("/")[2]
    execute(migrated_url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    found = await examine(migrated_url)
    text = "synchronous_commit=off, turned on by durably"
    assert found["durability"] == Finding("durability", OK, text)


async def test_server_with_hardly_a_connection_left_is_a_warning(
    own_postgres: PostgresServer,
) -> None:
    url = own_postgres.url()
    execute(url, "ALTER SYSTEM SET max_connections = 13")
    own_postgres.restart()
    with ExitStack() as others:
        for _ in range(7):
            others.enter_context(psycopg.connect(url))
        found = await examine(url)
    assert found["connections"].status is WARNING
    assert found["connections"].text.startswith("8 of 10 used")


async def test_notices_that_do_not_arrive_are_a_warning(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind PgBouncer in transaction mode; in session mode they do arrive."""
    with PgProxy(migrated_url) as pooler:
        pooler.poses = True
        found = await examine(pooler.url)
        assert found["notices"].status is OK
        assert found["notices"].text.startswith("arrive, through a pooler, in ")

        monkeypatch.setattr(health, "NOTICE_SECONDS", 0.2)
        pooler.swallow.add(NOTIFICATION)
        found = await examine(pooler.url)
        assert found["notices"].status is WARNING
        assert "don't arrive, through a pooler, " in found["notices"].text
        assert "say ?notify=off&prepare=off in the URL" in found["notices"].text

        found = await examine(f"{pooler.url}&notify=off&prepare=off")
        assert found["notices"] == Finding(
            "notices", OK, "off, through a pooler; processes look for news every half second"
        )


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (None, "there is no ledger at {url}; `durably migrate` creates it."),
        (-1, f"{{url}} has schema -1, this version {NEWEST}; run `durably migrate`."),
        (NEWEST + 1, f"{{url}} has schema {NEWEST + 1}, this version knows {NEWEST}: upgrade"),
    ],
)
async def test_ledger_of_another_version_is_a_problem(
    migrated_url: str, version: int | None, says: str
) -> None:
    change = f"UPDATE durably_schema SET version = {version}"
    execute(migrated_url, change if version is not None else "DROP TABLE durably_schema")
    found = await examine(migrated_url)
    assert found["ledger"].status is PROBLEM
    assert found["ledger"].text.startswith(says.format(url=migrated_url))
    assert "Oban" not in found


async def test_missing_tables_of_obans_are_a_problem(migrated_url: str) -> None:
    execute(migrated_url, "DROP TABLE oban_leaders", "DROP INDEX oban_jobs_staging_index")
    found = await examine(migrated_url)
    text = "oban_leaders, oban_jobs_staging_index missing; run `durably migrate`."
    assert found["Oban"] == Finding("Oban", PROBLEM, text)


async def test_right_that_is_missing_is_a_problem(migrated_url: str) -> None:
    grants = (
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO half_app;\n"
        "REVOKE UPDATE ON durably_runs FROM half_app"
    )
    with role(migrated_url, "half_app", grants) as url:
        found = await examine(url)
    assert found["rights"].status is PROBLEM
    assert found["rights"].text.startswith("half_app may not UPDATE on durably_runs: ")


async def test_right_to_number_jobs_that_is_missing_is_a_problem(migrated_url: str) -> None:
    grants = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO half_app"
    with role(migrated_url, "half_app", grants) as url:
        found = await examine(url)
    assert found["rights"].status is PROBLEM
    assert found["rights"].text.startswith("half_app may not USAGE on oban_jobs_id_seq: ")


async def test_server_that_is_away_is_a_problem_whose_password_is_not_told(
    own_postgres: PostgresServer,
) -> None:
    url = logged_in_as(own_postgres.url(), "postgres")
    own_postgres.stop()
    (finding,) = (await examine(url)).values()
    assert (finding.subject, finding.status) == ("ledger", PROBLEM)
    assert finding.text.startswith(f"{own_postgres.url()} is not available: ")
    assert PASSWORD not in finding.text
