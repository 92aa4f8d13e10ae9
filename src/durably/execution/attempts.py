"""The attempts under way in one worker: starting, counting, and ending them all.

Owns tasks and controls; what an attempt does is the executor's, why it must end the worker's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from durably.execution.control import AttemptControl, Ending
from durably.execution.executor import Executor
from durably.records import Claim, HeldRun, RunRecord

log = logging.getLogger(__name__)


class _Underway(NamedTuple):
    control: AttemptControl
    task: asyncio.Task[RunRecord | None]


class Attempts:
    """Every attempt that this worker executes.

    Args:
        hold: called as each attempt begins; what it returns tells the attempt's control whether
            the worker's lease has held since.
        on_end: called when an attempt has ended and its place is free.
    """

    def __init__(
        self,
        executor: Executor,
        hold: Callable[[], Callable[[], bool]],
        on_end: Callable[[], None],
    ) -> None:
        self._executor = executor
        self._hold = hold
        self._on_end = on_end
        self._underway: dict[tuple[int, int], _Underway] = {}
        self._busy: Counter[str] = Counter()
        self._strays: dict[tuple[int, int], float] = {}
        self._leaving = False

    def __len__(self) -> int:
        return len(self._underway)

    def busy(self, queue: str) -> int:
        """How many runs of a queue are being executed."""
        return self._busy[queue]

    def start(self, run: RunRecord) -> asyncio.Task[RunRecord | None]:
        """Begin the attempt that ``run`` was claimed for.

        The task ends with it: with the run as it left it, or None if the run was lost.
        """
        control = AttemptControl(self._hold())
        task = asyncio.create_task(self._attempt(run, control), name=f"durably:{run.key}")
        self._underway[(run.id, run.attempt)] = _Underway(control, task)
        self._busy[run.queue] += 1
        if self._leaving:
            control.leave()
        return task

    def leave(self) -> None:
        """Ask every attempt, and those still to start, to hand its run back."""
        self._leaving = True
        for underway in self._underway.values():
            underway.control.leave()

    def end_all(self, reason: Ending) -> None:
        """Stop every attempt now."""
        for underway in list(self._underway.values()):
            underway.control.end(reason)

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until every attempt has ended, or the time is over."""
        tasks = [underway.task for underway in self._underway.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def snapshot(self) -> set[tuple[int, int]]:
        """The attempts under way now, to compare later with what the ledger says."""
        return set(self._underway)

    def compare(
        self, before: set[tuple[int, int]], held: Sequence[HeldRun], stray_seconds: float
    ) -> list[Claim]:
        """End attempts whose run was cancelled or taken; find runs that nobody here executes.

        Args:
            before: a `snapshot` from before the ledger was read.
            held: what the ledger says this worker holds.
            stray_seconds: how long a run may be held without an attempt, as it is for a moment
                after each claim.

        Returns:
            Claims to hand back: an attempt of theirs ended without being settled.
        """
        known = {(h.run_id, h.attempt): h for h in held}
        for key in before & set(self._underway):
            control = self._underway[key].control
            if key not in known:
                if not control.settling:
                    control.end(Ending.LOST)
            elif control.lost:
                control.end(Ending.LOST)  # It lapsed meanwhile, and holds again, for others.
            elif known[key].cancel_requested:
                control.end(Ending.CANCELLED)
        strays = set(known) - before - set(self._underway)
        now = time.monotonic()
        self._strays = {key: self._strays.get(key, now) for key in strays}
        return [
            Claim(*key, worker_id="")
            for key, since in self._strays.items()
            if now - since > stray_seconds
        ]

    async def _attempt(self, run: RunRecord, control: AttemptControl) -> RunRecord | None:
        try:
            return await self._executor.execute(run, control)
        except Exception:
            # The run is safe: it shows as held without an attempt, and is handed back.
            log.exception("attempt %d of run %r could not be settled", run.attempt, run.key)
            return None
        finally:
            del self._underway[(run.id, run.attempt)]
            self._busy[run.queue] -= 1
            self._on_end()
