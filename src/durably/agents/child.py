"""A run of another agent, started by a tool and waited for: ``durably.run_child``.

Owns the public function; that it is started once, and waited for without a worker, is `inside`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from durably.execution.call import current_call

if TYPE_CHECKING:
    from pydantic_ai.agent import AbstractAgent
    from pydantic_ai.messages import UserContent


async def run_child[OutputT](
    agent: AbstractAgent[Any, OutputT] | str,
    prompt: str | Sequence[UserContent],
    *,
    key: str | None = None,
    args: Mapping[str, Any] | None = None,
    queue: str | None = None,
    priority: int | None = None,
    max_attempts: int | None = None,
    tags: Sequence[str] = (),
    meta: Mapping[str, Any] | None = None,
    stream: bool | None = None,
) -> OutputT:
    """Have another agent do something, in a run of its own, and wait for its output.

    The run of this tool is suspended meanwhile. The child survives its crash, is started once,
    counts to its usage, and is cancelled with it.

    Args:
        agent: a registered agent, or its name.
        key: the child's, unique among all runs; default: made of the parent's and the call's.
        args, queue, max_attempts, meta, stream: as for ``enqueue``.
        priority: default: the parent's.
        tags: in addition to the parent's.

    Returns:
        The child's output, of its agent's output type.

    Raises:
        ChildFailed: the child was discarded or cancelled. Uncaught, the model is told.
        KeyConflict: the key belongs to a run that is no child of this one.
        UnknownAgent: the agent is not registered.
        ConfigError: an option cannot work, or the tool is not declared as one that waits.
    """
    options = {
        "key": key,
        "args": args,
        "queue": queue,
        "priority": priority,
        "max_attempts": max_attempts,
        "tags": tags,
        "meta": meta,
        "stream": stream,
    }
    return cast("OutputT", await current_call().inside.run_child(agent, prompt, options))
