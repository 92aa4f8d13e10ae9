"""What the crash tests share."""

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("crash.promises", "crash.processes")

from crash.processes import Processes  # noqa: E402


@pytest.fixture
def processes() -> Iterator[Processes]:
    started = Processes()
    yield started
    started.close()
