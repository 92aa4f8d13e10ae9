"""The pytest plugin: options and fixtures, all of whose names begin with ``durably``.

Owns which ledger a test has and what becomes of it. It is loaded at each start of pytest wherever
durably is installed, so it imports nothing else before a fixture is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from durably.app import Durably
    from durably.testing.clock import Clock

FAILED = pytest.StashKey[bool]()
LEDGER = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    what = "where tests have their ledgers: postgresql://… (default: SQLite, in a temporary folder)"
    group = parser.getgroup("durably")
    group.addoption("--durably-url", metavar="URL", help=f"{what}; also $DURABLY_TEST_URL")
    parser.addini("durably_url", f"{what}; --durably-url and $DURABLY_TEST_URL come first")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
        if (ledger := item.stash.get(LEDGER, None)) is not None:
            report.sections.append(("durably", f"The test's ledger is kept: {ledger}"))
    return report


@pytest.fixture
def durably_url(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[str]:
    """The URL of the test's own, empty ledger.

    A schema on PostgreSQL is deleted after a test that passed; one that failed says where it is.
    """
    from durably.testing import ledgers

    url = ledgers.fresh_url(_server(request.config), tmp_path)
    request.node.stash[LEDGER] = ledgers.shown(url)
    yield url
    if not request.node.stash.get(FAILED, False) and ledgers.delete(url):
        del request.node.stash[LEDGER]


@pytest.fixture
def durably_clock() -> Clock:
    """The clock of `durably_app`, `durably_make_app` and `durably_redirect`."""
    from durably.testing.clock import Clock

    return Clock()


@pytest.fixture
def durably_make_app(durably_url: str, durably_clock: Clock) -> Generator[Callable[..., Durably]]:
    """Makes applications on the test's ledger: ``durably_make_app(agents=[support])``.

    Arguments are those of `durably.Durably`, but for the URL and the clock. Each is open, and is
    closed after the test.
    """
    from durably.app import Durably
    from durably.testing import ledgers

    with ExitStack() as apps:

        def make(**options: Any) -> Durably:
            app = Durably(durably_url, clock=durably_clock, **options)
            return apps.enter_context(ledgers.opened(app))

        yield make


@pytest.fixture
def durably_app(durably_make_app: Callable[..., Durably]) -> Durably:
    """An application on the test's ledger, open; it knows the agents that it is told of."""
    return durably_make_app()


@pytest.fixture
def durably_redirect(
    durably_url: str, durably_clock: Clock
) -> Generator[Callable[[Durably], Durably]]:
    """Has an application of your own work on the test's ledger: ``durably_redirect(app)``."""
    from durably.testing import ledgers

    with ExitStack() as apps:
        yield lambda app: apps.enter_context(
            ledgers.redirect(app, durably_url, clock=durably_clock)
        )


def _server(config: pytest.Config) -> str | None:
    asked = config.getoption("--durably-url") or os.environ.get("DURABLY_TEST_URL")
    return asked or config.getini("durably_url") or None
