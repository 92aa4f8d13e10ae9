"""The list of boundaries is what the code reaches, and whoever observes them is told."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import durably
from durably import ConfigError, boundaries
from durably.agents.guarded import Guarded
from durably.agents.stepped import GuardedStep

SOURCE = Path(inspect.getfile(durably)).parent
CALLS = {Guarded.boundary, GuardedStep.boundary}


def reached_in(tree: ast.AST) -> Iterator[str]:
    """The names that a module gives to ``boundaries.reached``."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) != "boundaries.reached":
            continue
        match node.args[0]:
            case ast.Constant(value=str(name)):
                yield name
            case ast.JoinedStr(values=[ast.FormattedValue(), ast.Constant(value=str(end))]):
                yield from (f"{call}{end}" for call in CALLS)
            case other:
                pytest.fail(f"nobody knows which boundary this is: {ast.unparse(other)}")


def test_the_list_has_every_boundary_that_the_code_reaches_and_no_other() -> None:
    found = {
        name
        for path in SOURCE.rglob("*.py")
        for name in reached_in(ast.parse(path.read_text("utf-8")))
    }
    assert found == set(boundaries.NAMES)


def test_an_unknown_boundary_is_refused_with_what_it_may_have_meant() -> None:
    boundaries.check("outcome:before")
    with pytest.raises(
        ConfigError, match=r"no boundary 'outcome:befor'; there is 'outcome:before'"
    ):
        boundaries.check("outcome:befor")
    with pytest.raises(ConfigError, match=r"'lunch'; there is 'model:before', 'model:after'"):
        boundaries.check("lunch")


def test_an_application_defines_boundaries_of_its_own() -> None:
    with pytest.raises(ConfigError):
        boundaries.check("charged half")
    boundaries.define("charged half", "the first of two charges is made")
    boundaries.check("charged half")
    with pytest.raises(ConfigError, match="choose another name"):
        boundaries.define("tool:after", "mine")


def test_observers_are_told_side_by_side_and_which_tool_it_is_about() -> None:
    told: list[tuple[str, str | None]] = []
    first: list[str] = []
    boundaries.observe(first.append)
    try:
        with boundaries.observing(lambda name: told.append((name, boundaries.tool()))):
            boundaries.reached("tool:after", "charge")
            boundaries.reached("settle:before")
        boundaries.reached("settle:after")
    finally:
        boundaries.observe(None)
    boundaries.reached("end:before")
    assert told == [("tool:after", "charge"), ("settle:before", None)]
    assert first == ["tool:after", "settle:before", "settle:after"]
    assert boundaries.tool() is None
