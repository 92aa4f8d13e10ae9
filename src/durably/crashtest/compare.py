"""Whether two runs of the same script are the same, but for what differs between any two.

Owns what is left out: times, ids, and what already differed where nothing had happened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from durably.crashtest.facts import Facts, RunFacts

VOLATILE = frozenset({"timestamp", "run_id", "conversation_id"})
"""Fields of messages that are others in every run."""

type Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Agreement:
    """Where a run differs from the undisturbed one.

    Attributes:
        output: whether the outputs are the same.
        history: whether the histories are, apart from what tools returned.
        results: the tools whose results differ, and the model was not told that they would.
        where: the first places in the histories that differ, to look at.
    """

    output: bool
    history: bool
    results: list[str]
    where: list[str]


def differences(one: Any, other: Any, path: Path = ()) -> Iterator[Path]:
    """The places at which two JSON values differ, outermost where their shapes do."""
    if isinstance(one, dict) and isinstance(other, dict):
        mine, theirs = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        for name in sorted(mine.keys() | theirs.keys()):
            if name in VOLATILE:
                continue
            if name not in mine or name not in theirs:
                yield (*path, name)
            else:
                yield from differences(mine[name], theirs[name], (*path, name))
    elif isinstance(one, list) and isinstance(other, list):
        left, right = cast("list[Any]", one), cast("list[Any]", other)
        if len(left) != len(right):
            yield path
            return
        for index, (mine, theirs) in enumerate(zip(left, right, strict=True)):
            yield from differences(mine, theirs, (*path, index))
    elif one != other:
        yield path


def comparable(facts: Facts) -> dict[str, Any]:
    """What of a run, and of those that it started, is to be the same."""
    return {key: _comparable(run) for key, run in facts.runs.items()}


def _comparable(run: RunFacts) -> dict[str, Any]:
    output = run.output
    return {
        "state": run.state,
        "output": None if output is None else json.loads(output),
        "messages": [_in_order(message) for message in run.messages],
    }


def _in_order(message: dict[str, Any]) -> dict[str, Any]:
    """Answers to calls by their ids: those that waited may come before or after the others."""
    if message.get("kind") != "request":
        return message
    answers = sorted(
        (part for part in message["parts"] if "tool_call_id" in part),
        key=lambda part: (str(part["tool_call_id"]), str(part["tool_name"])),
    )
    others = [part for part in message["parts"] if "tool_call_id" not in part]
    return message | {"parts": [*answers, *others]}


def varying(recorded: Facts, usual: Facts) -> frozenset[Path]:
    """What differs between two undisturbed runs: by itself, so it says nothing about crashes."""
    return frozenset(differences(comparable(recorded), comparable(usual)))


def agreement(usual: Facts, facts: Facts, by_itself: frozenset[Path]) -> Agreement:
    """How a run that was crashed compares with the undisturbed one."""
    output, history = True, True
    results: list[str] = []
    where: list[str] = []
    found = comparable(facts)
    for path in differences(comparable(usual), found):
        if any(path[: len(known)] == known for known in by_itself):
            continue
        part = _tool_return(found, path)
        if part is not None:
            if not _was_told(facts, path, part):
                results.append(str(part["tool_name"]))
            continue
        if "output" in path[1:2]:
            output = False
        else:
            history = False
        where.append(_text(path))
    return Agreement(output, history, sorted(set(results)), where[:5])


def _tool_return(found: dict[str, Any], path: Path) -> dict[str, Any] | None:
    """The part whose result differs there; None if anything else does."""
    if len(path) < 6 or path[1] != "messages" or path[3] != "parts":
        return None
    run, _, message, _, index, name = path[:6]
    part = found[str(run)]["messages"][int(message)]["parts"][int(index)]
    returned = part.get("part_kind") == "tool-return" and name in ("content", "metadata")
    return part if returned else None


def _was_told(facts: Facts, path: Path, part: dict[str, Any]) -> bool:
    run = facts.runs[str(path[0])]
    return any(
        effect.told
        and effect.tool == part["tool_name"]
        # A response's calls are answered by the message after it.
        and int(effect.call.partition(".")[0]) == int(path[2]) - 1
        for effect in run.effects.values()
    )


def _text(path: Path) -> str:
    return ".".join(map(str, path))
