"""Calls that may have happened: asking the tool's author, and what the model is told.

Owns the contract of ``reconcile`` functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any

from pydantic_ai import RunContext

from durably.effects import Done
from durably.errors import ConfigError, NotDone
from durably.execution.call import Call
from durably.execution.contained import contained, in_thread


class Verdict(Enum):
    """What a reconcile function found out."""

    DONE = "done"
    NOT_DONE = "not done"
    UNKNOWN = "unknown"


async def reconcile(
    function: Callable[..., Any], ctx: RunContext[Any], call: Call
) -> tuple[Verdict, Any]:
    """Ask ``function(ctx, call)`` whether the call happened.

    Returns:
        The verdict, and the result if it happened.

    Raises:
        ConfigError: it answered something else; the message says what it may answer.
        Exception: it could not ask; the attempt fails and the next one asks again.
    """
    whose = f"reconcile of tool {call.tool_name!r}"
    try:
        if inspect.iscoroutinefunction(function):
            answer = await contained(whose, function(ctx, call))
        else:
            answer = await contained(whose, in_thread(function, ctx, call))
            if inspect.isawaitable(answer):
                answer = await contained(whose, answer)
    except NotDone:
        return Verdict.NOT_DONE, None
    match answer:
        case Done(result):
            return Verdict.DONE, result
        case NotDone():
            return Verdict.NOT_DONE, None
        case None:
            return Verdict.UNKNOWN, None
        case _ if answer is NotDone:
            return Verdict.NOT_DONE, None
        case _:
            raise ConfigError(
                f"reconcile of tool {call.tool_name!r} returned {type(answer).__name__}: return "
                "effects.Done(result) if it happened, raise NotDone if it did not, or return None "
                "if you cannot tell."
            )


def told(tool_name: str, error: str | None) -> str:
    """What the model reads of a call whose outcome nobody knows."""
    why = f" ({error})" if error else ""
    return (
        f"The outcome of this call of {tool_name!r} is unknown: it was started, and was "
        f"interrupted before it answered{why}. It may have happened. Do not assume either; check "
        "before you try it again."
    )
