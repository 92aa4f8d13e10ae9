"""What a suspended run waits for, in a sentence, and how to let it go on.

Pure. Owns the words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durably.budgets import UsedUp
from durably.records import RunRecord


def described_waiting(run: RunRecord) -> str:
    """What a suspended run waits for, and how to let it go on; one sentence."""
    waiting = run.waiting_on or {}
    if run.in_line:
        damaged = not waiting.keys() & {"after", "steers"}
        return _damaged(run) if damaged else _in_line(run, waiting)
    if waiting.get("kind") == "change":
        return (
            f"Run {run.key!r} waits because its agent changed: `durably retry {run.key}` "
            "lets it go on with the agent as it is now."
        )
    others = " and ".join(_wait(wait) for wait in waiting.get("waits", []))
    if waiting.get("kind") == "waits":
        return f"Run {run.key!r} waits {others}."
    if waiting.get("kind") == "budget":
        used = UsedUp.read(waiting)
        if used is None:
            return _damaged(run)
        return (
            f"Run {run.key!r} waits because {used.whose()} is used up, {used.describe()}: "
            f"`durably {used.command()}` lets it go on, `durably cancel {run.key}` ends it."
        )
    calls = ", ".join(waiting.get("effects", [])) or "a decision"
    also = f" and {others}" if others else ""
    return (
        f"Run {run.key!r} waits for a decision on {calls}{also}: see `durably inbox`, then "
        f"`durably approve`, `deny`, `answer` or `resolve` {run.key} CALL_ID."
    )


def _damaged(run: RunRecord) -> str:
    return (
        f"Run {run.key!r} waits, but its row does not say for what "
        f"({'; '.join(run.damage)}): mend it, or `durably cancel {run.key}` ends it."
    )


def _in_line(run: RunRecord, waiting: Mapping[str, str]) -> str:
    thread = f"thread {run.thread!r}"
    match waiting["kind"]:
        case "steered":
            return (
                f"Run {run.key!r} has steered run {waiting['steers']!r} of {thread}, and ends "
                "as that does."
            )
        case "steer":
            return (
                f"Run {run.key!r} waits in {thread} for the run that is going to see its "
                f"message, or for its turn, after run {waiting['after']!r}."
            )
        case _:
            return (
                f"Run {run.key!r} waits for its turn in {thread}, after run {waiting['after']!r}."
            )


def _wait(wait: Mapping[str, Any]) -> str:
    until = f" until {wait['until']}" if "until" in wait else ""
    match wait["for"]:
        case "signal":
            return f"for the signal {wait.get('name')!r}{until}"
        case "child":
            return f"for run {wait.get('name')!r}"
        case _:
            return until.strip()
