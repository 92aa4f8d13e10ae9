"""What every test shares: the async backend and hypothesis's profile."""

import os

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["support.postgres"]

# Databases and subprocesses make timing noise; what counts is whether a promise holds. CI is
# repeatable, a developer's machine keeps looking for new examples.
settings.register_profile(
    "durably",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "durably"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
