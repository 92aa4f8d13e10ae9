"""What the tests of the matrix share: processes, and grounds for worlds on both databases."""

import pytest

pytest.register_assert_rewrite("crash.promises", "crash.processes", "faults.site")

from crash.conftest import _postgres_grounds, grounds, processes  # noqa: E402, F401
