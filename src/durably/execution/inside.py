"""What a tool's own code does durably inside its call: ``durably.step``, ``sleep`` and signals.

Owns the public functions and what they ask of the call; carrying it out is the agents', and so are
runs of other agents (``durably.run_child``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, overload

from durably.errors import ConfigError
from durably.execution.call import current_call

MAX_SECONDS = 100 * 365 * 86_400.0
MAX_NAME = 200
"""How many characters a step's name may have."""


class Inside(Protocol):
    """What a call lets its tool's code do; see the functions of this module."""

    async def step(
        self,
        name: str,
        work: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        effect: Mapping[str, Any] | None,
    ) -> Any: ...

    async def sleep(
        self, name: str | None, seconds: float | None, until: datetime | None
    ) -> None: ...

    async def wait_for_signal(self, name: str, seconds: float | None) -> Any: ...

    async def run_child(self, agent: Any, prompt: Any, options: Mapping[str, Any]) -> Any: ...

    async def finish(self) -> None:
        """Wait for what the tool's code began and did not wait for."""
        ...


@overload
async def step[T](
    name: str,
    work: Callable[..., Awaitable[T]],
    /,
    *args: Any,
    effect: Mapping[str, Any] | None = ...,
    **kwargs: Any,
) -> T: ...


@overload
async def step[T](
    name: str,
    work: Callable[..., T],
    /,
    *args: Any,
    effect: Mapping[str, Any] | None = ...,
    **kwargs: Any,
) -> T: ...


async def step(
    name: str,
    work: Callable[..., Any],
    /,
    *args: Any,
    effect: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Do a part of a tool's work that is recorded by itself: once done, it is not done again.

    ``receipt = await durably.step("charge", charge, order, effect=effects.once(reconcile=find))``

    Args:
        name: unique within the call; it is what the step is known by when the tool runs again.
        work: what to do, sync (in a thread) or async.
        args, kwargs: for ``work``; also what people see of the step.
        effect: what repeating it would do, as for tools; default: ``effects.once()``.

    Returns:
        What ``work`` returned, as JSON says it: the same now and when it is read again later. So
        a pydantic model comes back as a dict.

    Raises:
        StepFailed: it was denied, or a person said that it failed. Uncaught, the model is told.
        OutcomeUnknown: it may have happened (``on_doubt="tell"``); likewise.
        ConfigError: the name is taken, or the effect is none that a step can have.
        Exception: what ``work`` raised, under the rules of its effect.
    """
    if not name or len(name) > MAX_NAME or "\0" in name:
        raise ConfigError(f"A step's name has from 1 to {MAX_NAME} characters, and no NUL.")
    return await current_call().inside.step(name, work, args, kwargs, effect)


async def sleep(until: float | timedelta | datetime, *, name: str | None = None) -> None:
    """Suspend the run until a time: it holds no worker and no memory meanwhile.

    When the time has come, the tool runs again from its start and passes here at once.

    Args:
        until: seconds or a timedelta, counted from the first time that the tool came here; or a
            moment, with a time zone.
        name: what this sleep is known by when the tool runs again; default: its place among the
            call's sleeps.

    Raises:
        ConfigError: the time is none, or the tool is not declared as one that waits.
    """
    if isinstance(until, datetime):
        if until.tzinfo is None:
            raise ConfigError("sleep() needs a time zone: write datetime.now(UTC) + …")
        return await current_call().inside.sleep(name, None, until.astimezone(UTC))
    return await current_call().inside.sleep(name, _seconds("sleep()", until), None)


async def wait_for_signal(
    name: str, *, timeout: float | timedelta | None = None, default: Any = ...
) -> Any:
    """Suspend the run until somebody sends it a signal of this name: ``app.signal(key, name, …)``.

    Signals that came before are taken first, each by one wait, in the order in which they came.

    Args:
        timeout: how long to wait, in seconds or as a timedelta; default: for ever.
        default: what is returned when the time is over, instead of raising.

    Returns:
        The signal's payload.

    Raises:
        SignalTimeout: it did not come in time; it is a ``TimeoutError``. Uncaught, the model is
            told.
        ConfigError: the time is none, or the tool is not declared as one that waits.
    """
    if not name or len(name) > MAX_NAME or "\0" in name:
        raise ConfigError(f"A signal's name has from 1 to {MAX_NAME} characters, and no NUL.")
    seconds = None if timeout is None else _seconds("timeout", timeout)
    try:
        return await current_call().inside.wait_for_signal(name, seconds)
    except TimeoutError:
        if default is ...:
            raise
        return default


def _seconds(what: str, time: float | timedelta) -> float:
    seconds = time.total_seconds() if isinstance(time, timedelta) else float(time)
    if not 0 <= seconds <= MAX_SECONDS:  # also refuses NaN
        raise ConfigError(f"{what} of {seconds:g} s: from 0 seconds to 100 years.")
    return seconds
