"""What every test shares: the async backend, hypothesis's profile, where files go, and which tests
are run at all."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from support import long, sample
from support.memory import use_memory

pytest_plugins = ["support.postgres"]
pytest.register_assert_rewrite("support.provider")

use_memory()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore ^C, and so would every process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Databases and subprocesses make timing noise; what counts is whether a promise holds. CI is
# repeatable, a developer's machine keeps looking for new examples.
settings.register_profile(
    "durably",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    derandomize=bool(os.environ.get("CI")),
    max_examples=sample.examples(100),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "durably"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "longer: not in `make test`; see support.sample")
    config.addinivalue_line("markers", "thin: on PostgreSQL `make test` has the first parameters")
    config.addinivalue_line("markers", "by_database: each does it in its own way; leave out none")


# First: what is long does not depend on what else was asked for, by name or by marker.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if left_out := sample.left_out(items):
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    long.mark(items)
    sample.heaviest_first(items)
