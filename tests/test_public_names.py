"""What ``import durably`` gives and costs, and that the errors are the tree that they draw."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys

import pytest

import durably
from durably import errors

HEAVY = ("pydantic_ai", "pydantic", "sqlite3", "psycopg", "typer", "rich", "fastapi", "oban")


def imported_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running this."""
    script = f"{code}\nimport sys\nprint(sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(ast.literal_eval(done.stdout))


def test_importing_durably_imports_no_driver_and_no_framework() -> None:
    assert not imported_by("import durably") & set(HEAVY)


@pytest.mark.parametrize("name", ["effects", "errors", "RetryPolicy", "RunState", "LeaseLost"])
def test_names_that_need_no_framework_import_none(name: str) -> None:
    assert not imported_by(f"from durably import {name}") & {"pydantic_ai", "sqlite3"}


@pytest.mark.parametrize("name", durably.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(durably, name) is not None
    assert name in dir(durably)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = durably.nonsense


# --- the tree of errors


def drawn() -> dict[str, str]:
    """Each error of the drawn tree, and the one that it hangs from."""
    parents: dict[str, str] = {}
    branch: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.fullmatch(r"( {4}[ │├└─]*)([A-Z]\w+)(?: .*)?", line)
        if found is None:
            continue
        depth, name = len(found[1]), found[2]
        branch = [(d, n) for d, n in branch if d < depth]
        parents[name] = branch[-1][1] if branch else "Exception"
        branch.append((depth, name))
    return parents


def defined() -> dict[str, str]:
    return {
        name: error.__bases__[0].__name__
        for name, error in vars(errors).items()
        if inspect.isclass(error) and issubclass(error, Exception)
    }


def test_errors_are_the_tree_that_is_drawn() -> None:
    assert drawn() == defined()


def test_every_error_is_public() -> None:
    assert set(defined()) <= set(durably.__all__)
