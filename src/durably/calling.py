"""Calling the application's hooks: each in its own time, and a few times at once.

Owns what a hook may do wrong (block, hang, raise); what it is told, and when again, is
`durably.notifying`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from durably.errors import ConfigError
from durably.records import Waiting
from durably.wording import worded

CALLS_AT_ONCE = 4
"""How many calls of one hook are under way; those that hang keep their places."""

ERROR_CHARS = 300

type Hook = Callable[[Waiting], Any]
"""Called with what waits; sync, in a thread, or async. What it returns does not matter."""

_URL = re.compile(r"\b(\w+://)(?:[^\s/@'\"]*@)?([^\s/?#'\"]*)[^\s'\"]*")


class Hooks:
    """The hooks of one application, each under a name that is the same in every process."""

    def __init__(self) -> None:
        self._named: dict[str, Hook] = {}

    def add(self, hook: Hook) -> None:
        """Call this one as well; it is called once, however often it is added.

        Raises:
            ConfigError: it cannot be called.
        """
        if not callable(hook):
            raise ConfigError(
                f"A hook is called with what waits; {type(hook).__name__} is no function."
            )
        if any(known is hook for known in self._named.values()):
            return
        name, number = _name_of(hook), 1
        while name in self._named:
            number += 1
            name = f"{_name_of(hook)} ({number})"
        self._named[name] = hook

    def __iter__(self) -> Iterator[tuple[str, Hook]]:
        return iter(list(self._named.items()))

    def __bool__(self) -> bool:
        return bool(self._named)


class Caller:
    """Calls one hook, a few times at once."""

    def __init__(self, hook: Hook, seconds: float) -> None:
        self._hook = hook
        self._seconds = seconds
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)
        self._is_async = inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(
            type(hook).__call__
        )

    async def call(self, waiting: Waiting) -> Exception | None:
        """Call it; returns why it did not take what it was given, or None if it did."""
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                await self._places.acquire()
                await self._call(waiting)
        except TimeoutError as error:
            if limit.expired():
                return TimeoutError(f"no answer in {self._seconds:g} s")
            return error
        except Exception as error:
            return error
        return None

    async def _call(self, waiting: Waiting) -> None:
        if self._is_async:
            answer: asyncio.Future[Any] = asyncio.create_task(_kept_in(self._hook(waiting)))
        else:
            answer = _in_thread(self._hook, waiting)
        answer.add_done_callback(self._free)
        try:
            # What cannot be stopped is left alone, and keeps its place until it ends.
            result = await asyncio.shield(answer)
        except asyncio.CancelledError:
            if answer.cancelled():
                raise RuntimeError("the hook was cancelled") from None
            if self._is_async:
                answer.cancel()
            raise
        if inspect.isawaitable(result):
            await _kept_in(result)

    def _free(self, answer: asyncio.Future[Any]) -> None:
        self._places.release()
        if not answer.cancelled():
            answer.exception()  # Seen: of one that came too late nobody asks any more.


async def _kept_in(call: Awaitable[Any]) -> Any:
    """Wait for a hook: what is no ``Exception``, as of ``sys.exit()``, would end the event loop."""
    try:
        return await call
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise RuntimeError(worded(error)) from error


def _in_thread(hook: Hook, waiting: Waiting) -> asyncio.Future[Any]:
    """Call a sync hook in a thread of its own: one that hangs takes it from nobody, and does not
    keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if error is None:
            answer.set_result(result)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            answer.set_exception(error)
        else:
            answer.set_exception(RuntimeError(worded(error)))

    def work() -> None:
        result, failure = None, None
        try:
            result = hook(waiting)
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # The loop is closed: the worker has left.
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="durably-hook", daemon=True).start()
    return answer


def _name_of(hook: Hook) -> str:
    """A name that says which hook it is, also to another process."""
    name = getattr(hook, "hook_name", None)
    if isinstance(name, str):
        return name
    function = inspect.unwrap(getattr(hook, "func", hook))
    return str(getattr(function, "__qualname__", type(hook).__qualname__))


def shown(error: Exception) -> str:
    """An error in a few words, without what may be secret in the URLs of webhooks."""
    text = worded(error).removesuffix(": ")
    text = " ".join(_URL.sub(r"\1\2/…", text).split())
    return text if len(text) <= ERROR_CHARS else f"{text[: ERROR_CHARS - 1]}…"
