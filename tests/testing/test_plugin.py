"""The pytest plugin, as somebody has it who installed durably: real test files, run by pytest."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import psycopg
import pytest

from durably import testing
from durably.testing import ledgers
from support.postgres_run import Postgres

USERS_TESTS = """
import pytest
from pydantic_ai import Agent
from durably import Durably, effects
from durably.testing import ScriptedModel, assert_effects, assert_enqueued, call, crash_at, drain

pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"

cashier = Agent(ScriptedModel(call("charge", cents=5), "Paid."), name="cashier")
app = Durably("sqlite:///production.db", agents=[cashier])

@cashier.tool_plain(metadata=effects.once())
async def charge(cents: int) -> str:
    return "payment 7"

async def test_crash(durably_app):
    run = await durably_app.enqueue(cashier, "Charge.", key="k")
    async with crash_at(durably_app, "outcome:after"):
        await durably_app.drain()
    await drain(durably_app)
    await assert_effects(run, {"charge": 1})

async def test_their_own_app(durably_redirect, durably_clock, durably_url):
    durably_redirect(app)
    await app.enqueue(cashier, "Charge.", key="k", delay=3600)
    durably_clock.advance(3600)
    assert (await drain(app)).attempts == 1
    assert app.settings.url == durably_url

def test_their_own_app_is_as_it_was():
    assert app.settings.url == "sqlite:///production.db"

async def test_nothing_is_there_yet(durably_make_app):
    assert await durably_make_app(agents=[cashier]).runs() == []

async def test_fails(durably_app):
    run = await durably_app.enqueue(cashier, "Charge.", key="kept")
    await drain(durably_app)
    await assert_effects(run, {"charge": "in_doubt"})

async def test_crashes_nowhere(durably_app):
    async with crash_at(durably_app, "tool:after"):
        await durably_app.drain()
"""


WITHOUT = [
    f"-pno:{name}"
    for name in ("schemathesis", "hypothesispytest", "playwright", "base_url", "xdist", "timeout")
]
"""Plugins that take long to import, and that have no part in this."""


@pytest.fixture
def url_option(server: str | None) -> list[str]:
    return [] if server is None else [f"--durably-url={server}"]


def schemas(server: str) -> set[str]:
    with psycopg.connect(server) as connection:
        rows = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'durably_test_%'"
        ).fetchall()
    return {name for (name,) in rows}


def test_a_users_test_file_passes_and_fails_as_it_should(
    pytester: pytest.Pytester, server: str | None, url_option: list[str]
) -> None:
    before = schemas(server) if server else set[str]()
    pytester.makepyfile(test_users=USERS_TESTS)
    run = pytester.runpytest_inprocess if server else pytester.runpytest_subprocess
    result = run(*WITHOUT, *url_option)
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*The effects of run 'kept' (completed) are others:",
            "*charge: expected in_doubt, there is done",
            '*1.0  charge({"cents":5})  done  [[]once, attempt 1]',
        ]
    )
    result.stdout.fnmatch_lines(["*Nothing came to 'tool:after'. Boundaries that were reached: *"])
    kept = re.findall(r"The test's ledger is kept: (\S+)", result.stdout.str())
    assert len(kept) == 2
    if server is None:
        assert all(Path(url.removeprefix("sqlite:///")).exists() for url in kept)
        return
    left = schemas(server) - before
    assert {url.partition("schema=")[2] for url in kept} == left, "only those are left"
    for url in kept:
        ledgers.delete(url)
    assert schemas(server) == before


def test_the_url_may_be_in_the_environment_or_the_configuration(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile("def test_it(durably_url): assert durably_url == ''")
    monkeypatch.setenv("DURABLY_TEST_URL", "mysql://localhost/test")
    said = "Tests run on SQLite, or on postgresql://user@host/database; not on "
    result = pytester.runpytest_inprocess(*WITHOUT)
    result.stdout.fnmatch_lines([f"*{said}'mysql://localhost/test'."])
    monkeypatch.delenv("DURABLY_TEST_URL")
    pytester.makeini("[pytest]\ndurably_url = redis://localhost")
    result = pytester.runpytest_inprocess(*WITHOUT)
    result.stdout.fnmatch_lines([f"*{said}'redis://localhost'."])


def test_the_plugin_is_registered_and_imports_next_to_nothing() -> None:
    (entry,) = entry_points(group="pytest11", name="durably")
    assert entry.value == "durably.testing.plugin"
    script = (
        "import pytest, sys; before = set(sys.modules); import durably.testing.plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["durably", "durably.testing", "durably.testing.plugin"]


@pytest.mark.parametrize("name", testing.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(testing, name) is not None
    assert name in dir(testing)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = testing.nonsense


def test_a_schema_of_the_users_is_refused(postgres: Postgres, tmp_path: Path) -> None:
    with pytest.raises(ledgers.ConfigError, match="take \\?schema= out"):
        ledgers.fresh_url(f"{postgres.url}?schema=mine", tmp_path)
    assert "sslmode=prefer&schema=durably_test_" in ledgers.fresh_url(
        "postgresql://localhost/test?sslmode=prefer", tmp_path
    )
