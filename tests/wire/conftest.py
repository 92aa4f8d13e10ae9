"""What the tests on a real wire share: one provider, and a ledger with a worker per database."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.register_assert_rewrite("wire.site")

from durably import Durably  # noqa: E402
from support.postgres_run import Postgres  # noqa: E402
from wire.provider import Provider  # noqa: E402
from wire.site import Site  # noqa: E402


@pytest.fixture(scope="session")
def wire_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wire")


@pytest.fixture(scope="session")
def _provider(wire_folder: Path) -> Iterator[Provider]:
    with Provider(wire_folder / "provider.log") as provider:
        yield provider.start()


@pytest.fixture
def provider(_provider: Provider) -> Provider:
    """A provider that was asked nothing yet."""
    _provider.reset()
    return _provider


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def _site(request: pytest.FixtureRequest, wire_folder: Path, _provider: Provider) -> Iterator[Site]:
    with ExitStack() as stack:
        url = f"sqlite:///{wire_folder}/ledger.db"
        if request.param == "postgres":
            postgres: Postgres = request.getfixturevalue("postgres")
            url = stack.enter_context(postgres.database(template=postgres.migrated))
        late = stack.enter_context(Provider(wire_folder / f"late-{request.param}.log"))
        site = Site(url, _provider, late, wire_folder / request.param)
        stack.callback(site.close)
        site.start_worker("--queue", "agents=4")
        yield site


@pytest.fixture
def site(_site: Site, provider: Provider) -> Iterator[Site]:
    """A ledger with a worker on its queue ``agents``; others live as long as the test."""
    yield _site
    _site.close(but_first=1)


@pytest.fixture
async def app(site: Site) -> AsyncIterator[Durably]:
    """A client of the site's ledger; what a test has left unfinished is cancelled."""
    async with site.app() as app:
        yield app
        for state in ("scheduled", "available", "executing", "retryable", "suspended"):
            for run in await app.runs(state=state):
                await run.cancel()
