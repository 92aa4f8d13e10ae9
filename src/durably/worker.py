"""A worker: dispatch, execution, heartbeat and maintenance in one process, and leaving gracefully.

Owns the order in which the parts start and stop; each part's own work is in its own module.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from durably.calling import Hooks
from durably.dispatch.choice import Dispatching, dispatcher_for
from durably.dispatch.queues import QueueSettings
from durably.errors import ConfigError, LeaseLost, LedgerUnavailable
from durably.execution.attempts import Attempts
from durably.execution.away import Away
from durably.execution.control import Ending
from durably.execution.executor import Executor
from durably.execution.lease import WorkerLease
from durably.ledger import attempts, queues, workers
from durably.ledger.database import Database
from durably.ledger.operations import Operation, brief
from durably.ledger.written import Step
from durably.maintenance import maintain
from durably.notifying import Notifier
from durably.records import HeldRun, QueueSetting, RunRecord

log = logging.getLogger(__name__)

DEFAULT_LEASE_SECONDS = 30.0
DEFAULT_GRACE_SECONDS = 30.0
DEFAULT_CONCURRENCY = 20
MIN_LEASE_SECONDS = 1.0

SETTLE_SECONDS = 10.0
"""How long cancelled attempts may take to write that they were handed back."""

LOOK_SECONDS = 0.1
"""At most how often a worker asks the ledger about its runs and queues: was one cancelled, taken,
paused?"""

NET_SECONDS = 0.5
"""How often it asks although nothing was committed; a net under the notices."""

STRAY_SECONDS = 5.0
"""How long a run may be held here without an attempt before it is handed back: it was claimed, and
nobody heard that it was, or its attempt could not be settled."""

IDLE_NET_SECONDS = 1.0
"""The same while no attempt is under way here; a queue may be paused, resumed or scaled."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works.

    Attributes:
        queues: how many runs of each queue it executes at once, unless the queue is scaled.
        lease_seconds: how long it counts as alive without a heartbeat; at least 1.
        grace_seconds: how long attempts may go on after `Worker.stop`.
        name: for people; the worker's id is unique anyway.
    """

    queues: Mapping[str, int]
    lease_seconds: float = DEFAULT_LEASE_SECONDS
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    name: str = field(default_factory=socket.gethostname)

    def __post_init__(self) -> None:
        if self.lease_seconds < MIN_LEASE_SECONDS:
            raise ConfigError(f"A lease of {self.lease_seconds:g} s is too short; at least 1 s.")
        if self.grace_seconds < 0:
            raise ConfigError(f"A grace period of {self.grace_seconds:g} s cannot be.")
        for queue, limit in self.queues.items():
            if limit < 1:
                raise ConfigError(f"Queue {queue!r} with {limit} runs at once; at least 1.")


class Worker:
    """Executes runs until it is stopped. Start it with ``async with app.worker(...)``.

    Attributes:
        id: unique to this start of this process; attempts name it.
        queues: what it serves, as it is set now.
        stopped: set once everything is handed back and the worker is forgotten.
    """

    def __init__(
        self,
        ledger: Database,
        executor: Executor,
        options: WorkerOptions,
        dispatching: Dispatching | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.id = f"{options.name}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.options = options
        self.queues = QueueSettings(options.queues)
        self.stopped = asyncio.Event()
        self._ledger = ledger
        self._executor = executor
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._duties: list[asyncio.Task[None]] = []
        self._dispatching: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._lease = WorkerLease(
            ledger,
            worker_id=self.id,
            name=options.name,
            pid=os.getpid(),
            queues=dict(options.queues),
            lease_seconds=options.lease_seconds,
            on_beat=self._look_soon,
        )
        self._dispatcher = dispatcher_for(ledger, self.id, self.queues, self, dispatching)
        self._attempts = Attempts(executor, self._lease.hold, self._dispatcher.slot_freed)

    async def start(
        self, *, dispatch: bool = True, maintenance: bool = True, after_outage: bool = False
    ) -> None:
        """Register, begin to beat, and (unless ``dispatch`` is off) to claim.

        Args:
            maintenance: False leaves the background duties to whoever starts it.
            after_outage: the database was away a moment ago: others may not have come back yet.
        """
        self.queues.apply(await self._ledger.read(queues.list_settings))
        await self._lease.start(steady=not after_outage)
        self._duties = [self._duty(self._watch_ledger())]
        if maintenance:
            self._duties.append(self._duty(maintain(self._ledger, self._lease)))
        if self._hooks is not None:
            self._duties.append(self._duty(Notifier(self._ledger, self._hooks).run()))
        if dispatch:
            self._dispatching = self._duty(self._dispatcher.run(self._attempts.start))

    async def stop(self) -> None:
        """Leave: claim nothing more, hand runs back at their next checkpoint, end within grace.

        What still runs when the grace period is over is cancelled and handed back. Calling it
        twice waits for the same end.
        """
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave())
        await asyncio.shield(self._leaving)

    def free(self, queue: str) -> int:
        """Free places in a queue; none while it is paused, or while this worker counts as dead."""
        if self.queues.paused(queue) or not self.alive:
            return 0
        return self.queues.limit(queue) - self._attempts.busy(queue)

    @property
    def alive(self) -> bool:
        """False while its lease is over: what it claimed would be lost, and claimed, and lost."""
        return self._lease.valid()

    @property
    def leaving(self) -> bool:
        """True once `stop` was called: nothing more is claimed."""
        return self._leaving is not None

    @property
    def executing(self) -> int:
        """How many attempts are under way here."""
        return len(self._attempts)

    async def execute(self, run: RunRecord) -> None:
        """Execute a run that this worker has claimed, and wait for its attempt to end."""
        await asyncio.shield(self._attempts.start(run))

    def _duty(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def dutiful() -> None:
            try:
                await work
            except Exception:
                log.exception("a duty of worker %s failed: the worker leaves", self.id)
                self._leaving = self._leaving or asyncio.create_task(self._leave())

        return asyncio.create_task(dutiful())

    def _look_soon(self) -> None:
        """Called in any thread, after heartbeats and commits."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _watch_ledger(self) -> None:
        """Within a moment of its being known: end attempts whose run was cancelled or lost, and
        let queues be paused, resumed and scaled.
        """
        away = Away(log, "looking after runs and queues")
        with self._ledger.subscribe(self._look_soon):
            while True:
                self._changed.clear()
                try:
                    await self._look()
                    away.over()
                except LedgerUnavailable as error:
                    away.now(error)
                await asyncio.sleep(LOOK_SECONDS)
                seconds = NET_SECONDS if self._attempts else IDLE_NET_SECONDS
                try:
                    await asyncio.wait_for(self._changed.wait(), timeout=seconds)
                except TimeoutError:
                    continue

    async def _look(self) -> None:
        if not self._lease.valid():
            self._attempts.end_all(Ending.LOST)
            if self._lease.moved is not None:
                raise self._lease.moved  # It was frozen meanwhile: nothing is left to do here.
            return
        before = self._attempts.snapshot()
        held, settings = await self._ledger.read(_news, self.id)
        self.queues.apply(settings)
        stray_seconds = min(self.options.lease_seconds, STRAY_SECONDS)
        for claim in self._attempts.compare(before, held, stray_seconds):
            try:
                # Nobody here knows of it, nor whether it has shown half a message.
                await self._ledger.write(attempts.hand_back, claim, Step(streams=True))
            except LeaseLost:
                continue  # Somebody has it already.

    async def _leave(self) -> None:
        log.info("worker %s leaves; %d attempts under way", self.id, len(self._attempts))
        self._attempts.leave()
        if self._dispatching is not None:
            # A claim under way is let finish: what it took is handed back like the rest.
            self._dispatching.cancel()
            await asyncio.wait({self._dispatching})
        await self._attempts.wait(self.options.grace_seconds)
        self._attempts.end_all(Ending.GRACE_OVER)
        await self._attempts.wait(SETTLE_SECONDS)
        await self._dispatcher.close()
        for duty in self._duties:
            duty.cancel()
        await asyncio.gather(*self._duties, return_exceptions=True)
        await self._lease.stop()
        self.stopped.set()


@brief
def _news(worker_id: str) -> Operation[tuple[list[HeldRun], dict[str, QueueSetting]]]:
    """What others may have changed for a worker: its runs, its queues."""
    held = yield from workers.held_runs(worker_id)
    return held, (yield from queues.list_settings())
