"""Assertions about runs and effects, which say what there is instead.

Owns the comparison and its words; what there is, is read through the application.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from durably.agents.registry import name_of
from durably.app import Durably
from durably.records import Effect
from durably.run import Run

SHOWN_RUNS = 20
"""How many runs a message lists."""

PAGE = 500

type Expected = int | str | Sequence[str] | None
"""How often a tool was done; or the state of its one call; or the states of its calls, in order;
None: it was not called."""

type Wanted = str | re.Pattern[str] | Callable[[Any], bool]
"""The whole prompt; or a pattern that is searched for; or a function that says whether it fits."""


async def assert_enqueued(
    app: Durably,
    agent: Any = None,
    *,
    prompt: Wanted | None = None,
    key: str | None = None,
    queue: str | None = None,
    tags: Iterable[str] = (),
    thread: str | None = None,
    state: str | None = None,
    args: Mapping[str, Any] | None = None,
    count: int | None = None,
) -> list[Run[Any]]:
    """Runs like this were enqueued, whatever became of them since.

    Args:
        agent: the agent or its name.
        prompt: the prompt; see `Wanted`.
        tags: those that a run has to have; it may have others.
        state: ``"available"`` and so on: only runs that are in it now.
        args: exactly these.
        count: exactly so many; default: at least one.

    Returns:
        The runs that fit, oldest first.

    Raises:
        AssertionError: there are none, or not so many; the message lists those that there are.
    """
    __tracebackhide__ = True
    wanted = _wanted(agent, prompt, key, queue, tags, thread, state, args)
    fitting, others = await _divided(app, wanted)
    if (count is None and fitting) or len(fitting) == count:
        return fitting
    many = {0: "No run", 1: "1 run"}.get(len(fitting), f"{len(fitting)} runs")
    need = "" if count is None else f", not {count}"
    raise AssertionError(
        f"{many} with {_described(wanted)} {'were' if len(fitting) > 1 else 'was'} "
        f"enqueued{need}. {await _listed(fitting, others)}"
    )


async def refute_enqueued(
    app: Durably,
    agent: Any = None,
    *,
    prompt: Wanted | None = None,
    key: str | None = None,
    queue: str | None = None,
    tags: Iterable[str] = (),
    thread: str | None = None,
    state: str | None = None,
    args: Mapping[str, Any] | None = None,
) -> None:
    """No run like this was enqueued; arguments as of `assert_enqueued`.

    Raises:
        AssertionError: there are some; the message lists them.
    """
    __tracebackhide__ = True
    wanted = _wanted(agent, prompt, key, queue, tags, thread, state, args)
    fitting, _ = await _divided(app, wanted)
    if fitting:
        raise AssertionError(
            f"No run with {_described(wanted)} should have been enqueued. "
            f"{await _listed(fitting, [])}"
        )


async def assert_effects(
    run: Run[Any], expected: Mapping[str, Expected], *, exact: bool = True
) -> list[Effect]:
    """The ledger holds these effects of a run: ``{"charge": 1, "mail": "in_doubt"}``.

    Args:
        expected: for each tool how often it was done, or the states of its calls; see `Expected`.
            Also for steps and waits inside a tool: ``{"ship/label": 1}``.
        exact: tools that are not named were not called.

    Returns:
        All effects of the run, in order.

    Raises:
        AssertionError: there are others; the message lists them.
    """
    __tracebackhide__ = True
    effects = await run.effects()
    there: dict[str, list[str]] = {}
    for effect in effects:
        step = effect.position.step
        name = f"{effect.tool_name}/{step}" if step else effect.tool_name
        if name in expected or (exact and not step):
            there.setdefault(name, []).append(str(effect.state))
    wrong = [
        f"  {tool}: expected {_states(states)}, there {_are(there.get(tool, []))}"
        for tool, states in expected.items()
        if there.get(tool, []) != _as_list(states)
    ]
    wrong += [
        f"  {tool}: not expected, there {_are(states)}"
        for tool, states in there.items()
        if tool not in expected
    ]
    if not wrong:
        return effects
    await run.refresh()
    shown = "\n".join(map(_shown_effect, effects)) or "  none"
    raise AssertionError(
        f"The effects of run {run.key!r} ({run.state}) are others:\n"
        + "\n".join(wrong)
        + f"\nAll its effects:\n{shown}"
    )


# --- runs


def _wanted(
    agent: Any,
    prompt: Wanted | None,
    key: str | None,
    queue: str | None,
    tags: Iterable[str],
    thread: str | None,
    state: str | None,
    args: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What is asked for, by name; nothing else."""
    asked = {
        "agent": None if agent is None else name_of(agent),
        "prompt": prompt,
        "key": key,
        "queue": queue,
        "tags": sorted(tags) or None,
        "thread": thread,
        "state": state,
        "args": None if args is None else dict(args),
    }
    return {name: value for name, value in asked.items() if value is not None}


async def _divided(
    app: Durably, wanted: Mapping[str, Any]
) -> tuple[list[Run[Any]], list[tuple[Run[Any], list[str]]]]:
    """The runs that fit; and the others, with what is different about each."""
    runs: list[Run[Any]] = []
    while page := await app.runs(limit=PAGE, before=runs[-1].record.id if runs else None):
        runs += page
    fitting: list[Run[Any]] = []
    others: list[tuple[Run[Any], list[str]]] = []
    for run in reversed(runs):
        different = await _differences(run, wanted)
        if different:
            others.append((run, different))
        else:
            fitting.append(run)
    return fitting, others


async def _differences(run: Run[Any], wanted: Mapping[str, Any]) -> list[str]:
    record = run.record
    has: dict[str, Any] = {
        "agent": record.agent,
        "key": record.key,
        "queue": record.queue,
        "thread": record.thread,
        "state": str(record.state),
        "tags": sorted(set(record.tags) & set(wanted.get("tags", ()))),
    }
    if "prompt" in wanted:
        has["prompt"] = wanted["prompt"] if _fits(wanted["prompt"], await run.prompt()) else None
    if "args" in wanted:
        has["args"] = (await run.input()).args
    return [name for name, value in wanted.items() if has[name] != value]


def _fits(wanted: Wanted, prompt: Any) -> bool:
    if isinstance(wanted, re.Pattern):
        return wanted.search(str(prompt)) is not None
    return wanted(prompt) if callable(wanted) else prompt == wanted


def _described(wanted: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_text_of(value)}" for name, value in wanted.items()) or "anything"


def _text_of(wanted: Any) -> str:
    if isinstance(wanted, re.Pattern):
        return f"like {cast('re.Pattern[str]', wanted).pattern!r}"
    return str(getattr(wanted, "__name__", repr(wanted)))


async def _listed(fitting: list[Run[Any]], others: list[tuple[Run[Any], list[str]]]) -> str:
    all_runs = [(run, list[str]()) for run in fitting] + others
    if not all_runs:
        return "There are no runs."
    lines = [await _shown_run(run, different) for run, different in all_runs[:SHOWN_RUNS]]
    if len(all_runs) > SHOWN_RUNS:
        lines.append(f"  and {len(all_runs) - SHOWN_RUNS} more")
    are = "There is 1 run:" if len(all_runs) == 1 else f"There are {len(all_runs)} runs:"
    return "\n".join([are, *lines])


async def _shown_run(run: Run[Any], different: list[str]) -> str:
    record = run.record
    parts = [record.key, record.agent, str(record.state), f"queue {record.queue}"]
    if record.tags:
        parts.append(f"tags {', '.join(record.tags)}")
    if record.thread:
        parts.append(f"thread {record.thread}")
    prompt = str(await run.prompt())
    parts.append(repr(prompt if len(prompt) <= 80 else f"{prompt[:79]}…"))
    why = f"  (another {', '.join(different)})" if different else ""
    return f"  {'  '.join(parts)}{why}"


# --- effects


def _as_list(expected: Expected) -> list[str]:
    match expected:
        case None:
            return []
        case int():
            return ["done"] * expected
        case str():
            return [expected]
        case _:
            return list(expected)


def _states(expected: Expected) -> str:
    states = _as_list(expected)
    if isinstance(expected, int) and expected > 1:
        return f"done, {expected} times"
    return ", ".join(states) or "no call"


def _are(states: list[str]) -> str:
    return f"is {states[0]}" if len(states) == 1 else f"are {', '.join(states) or 'none'}"


def _shown_effect(effect: Effect) -> str:
    args = effect.args if len(effect.args) <= 80 else f"{effect.args[:79]}…"
    error = f": {effect.error}" if effect.error else ""
    return (
        f"  {effect.call_id}  {effect.tool_name}({args})  {effect.state}{error}  "
        f"[{effect.policy}, attempt {effect.attempt}]"
    )
