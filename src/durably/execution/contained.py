"""Code of the application's, kept from ending more than its attempt.

Owns what becomes of exceptions that are no ``Exception``: asyncio would stop the whole event loop,
and with it every other run of the worker, for ``sys.exit()`` in one tool.
"""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from anyio import CapacityLimiter, to_thread

from durably import boundaries
from durably.errors import ToolExited
from durably.execution.outcome import AttemptEnds, Waits
from durably.wording import worded


async def contained[T](what: str, work: Awaitable[T]) -> T:
    """Wait for the application's code.

    Args:
        what: whose code it is, as a sentence begins: ``Tool 'charge'``.

    Raises:
        ToolExited: it raised what is neither an ``Exception`` nor anybody's wish to stop it.
        AttemptEnds, Waits: what it did inside ends the attempt, or waits.
        Exception: what it raised.
    """
    task = asyncio.current_task()
    try:
        return await work
    except MemoryError as error:
        # What filled the memory hangs on the frames of its traceback, and there is none left to
        # write down that it failed.
        traceback.clear_frames(error.__traceback__)
        raise
    except (Exception, AttemptEnds, Waits, boundaries.Died):
        raise
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling():
            raise
        raise ToolExited(
            f"{what} ended with CancelledError although nobody had stopped it: something that it "
            "waited for was cancelled."
        ) from error
    except BaseExceptionGroup as group:
        raise _of_group(what, group) from group
    except GeneratorExit as error:
        if not _is_running(task):
            raise  # The task is gone, and its coroutine is being closed.
        raise _exited(what, error) from error
    except BaseException as error:
        raise _exited(what, error) from error


async def in_thread[**P, T](work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call blocking code of the application's in a thread that nothing else waits for.

    The event loop's own threads are few, and it looks up the addresses of hosts in them: code that
    blocks them would hold up every run of the worker.
    """
    call = partial(work, *args, **kwargs)
    return await to_thread.run_sync(call, abandon_on_cancel=True, limiter=CapacityLimiter(math.inf))


def _exited(what: str, error: BaseException) -> ToolExited:
    return ToolExited(
        f"{what} raised {worded(error).removesuffix(': ')}, which is no Exception and could end "
        "its worker: raise an Exception instead."
    )


def _of_group(what: str, group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a group that a task group raised means: the end of the attempt before anything else."""
    inside = list(_leaves(group))
    if ends := [error for error in inside if isinstance(error, AttemptEnds)]:
        return ends[0]
    if all(isinstance(error, Waits) for error in inside):
        return group
    foreign = [e for e in inside if not isinstance(e, Exception | Waits)]
    if not foreign:
        # Something failed while something else came to wait.
        return next(error for error in inside if isinstance(error, Exception))
    return _exited(what, foreign[0])


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    inside = cast("BaseExceptionGroup[BaseException]", error).exceptions
    return [leaf for one in inside for leaf in _leaves(one)]


def _is_running(task: asyncio.Task[object] | None) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # There is no event loop any more.
        return False
