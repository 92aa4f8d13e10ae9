"""A duty of every worker: tell people what waits for them, through the application's hooks.

Owns when a hook is called, and called again; what has to be told is the ledger's.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from durably import boundaries
from durably.calling import Caller, Hook, Hooks, shown
from durably.errors import LedgerUnavailable
from durably.execution.away import Away
from durably.ledger import notices
from durably.ledger.database import Database
from durably.ledger.operations import Operation
from durably.records import Notice, Waiting
from durably.retry import RetryPolicy

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often a worker looks whether there is something to tell; the look is one indexed read."""

HOOK_SECONDS = 30.0
"""How long a hook may take, and wait for its turn, together."""

CLAIM_SECONDS = 60.0
"""How long a worker has for what it took up, until it counts as having died with it."""

AT_ONCE = 50
"""How many notices a worker has under way."""

RETRY = RetryPolicy(initial_seconds=5.0, factor=2.0, max_seconds=3600.0, jitter=0.25)

MAX_TRIES = 90
"""After how many tries nobody is told: about three days, with the delays of `RETRY`."""

LEAVE_SECONDS = 3.0
"""How long a worker that leaves waits for the hooks under way; others call them again."""


class Notifier:
    """Sends what is due, each notice to every hook that has not taken it yet.

    Args:
        hooks: looked at each time: one may be added while it works.
        seconds: how long a hook may take.
    """

    def __init__(self, ledger: Database, hooks: Hooks, seconds: float = HOOK_SECONDS) -> None:
        self._ledger = ledger
        self._hooks = hooks
        self._seconds = seconds
        self._callers: dict[str, Caller] = {}
        self._underway: set[asyncio.Task[None]] = set()
        self._away = Away(log, "telling people")

    async def run(self) -> None:
        """Send until cancelled. No hook holds up another, nor anything else of the worker."""
        try:
            while True:
                await self._begin()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._leave()

    async def send_due(self) -> int:
        """Send what is due now, and wait for it; returns how many notices that were."""
        count = 0
        while begun := await self._begin():
            await asyncio.wait(begun)
            count += len(begun)
        return count

    async def _begin(self) -> list[asyncio.Task[None]]:
        free = AT_ONCE - len(self._underway)
        if not self._hooks or free < 1:
            return []
        claimed: list[Notice] = []
        try:
            if await self._ledger.read(notices.any_due):
                claimed = await self._ledger.write(notices.claim, CLAIM_SECONDS, free)
            self._away.over()
        except LedgerUnavailable as error:
            self._away.now(error)
        begun = [asyncio.create_task(self._send(notice)) for notice in claimed]
        self._underway.update(begun)
        return begun

    async def _send(self, notice: Notice) -> None:
        try:
            waiting = await self._ledger.read(notices.find_waiting, notice)
            if waiting is None:
                await self._ledger.write(notices.drop, notice)
            else:
                await self._tell(notice, waiting)
        except LedgerUnavailable as error:
            log.warning("a notice is sent later: %s", error)
        except Exception:
            # As if the worker had died with it: it is taken up again.
            log.exception("a notice could not be sent")
        finally:
            task = asyncio.current_task()
            assert task is not None, "each is a task of its own"
            self._underway.discard(task)

    async def _tell(self, notice: Notice, waiting: Waiting) -> None:
        deadline = asyncio.get_running_loop().time() + CLAIM_SECONDS
        due = {name: hook for name, hook in self._hooks if name not in notice.taken_by}
        answers = await asyncio.gather(
            *(self._caller(name, hook).call(waiting) for name, hook in due.items())
        )
        boundaries.reached("notice:told")
        errors = {name: e for name, e in zip(due, answers, strict=True) if e is not None}
        taken_by = [*notice.taken_by, *(name for name in due if name not in errors)]
        if not errors:
            await self._write(deadline, lambda: notices.sent(notice, taken_by))
            return
        again = None if notice.tries >= MAX_TRIES else RETRY.delay(notice.tries, random.random)
        text = "; ".join(f"{name}: {shown(error)}" for name, error in errors.items())
        log.log(
            logging.ERROR if again is None else logging.WARNING,
            "not everybody could be told what run %r waits for (%s): %s",
            waiting.run_key,
            "given up" if again is None else f"again in {again:.0f} s",
            text,
        )
        await self._write(deadline, lambda: notices.failed(notice, taken_by, text, again))

    async def _write(self, deadline: float, operation: Callable[[], Operation[bool]]) -> None:
        """Write what became of it; while the database is away, as long as the notice is ours."""
        while True:
            try:
                await self._ledger.write(operation)
                return
            except LedgerUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(LOOK_SECONDS)

    def _caller(self, name: str, hook: Hook) -> Caller:
        return self._callers.setdefault(name, Caller(hook, self._seconds))

    async def _leave(self) -> None:
        if self._underway:
            await asyncio.wait(self._underway, timeout=LEAVE_SECONDS)
        left = list(self._underway)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
