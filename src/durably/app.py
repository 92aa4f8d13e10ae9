"""``Durably``: the public API; wires ledger, agents and workers together.

Owns no rule of its own: what a call means is in the part that it is passed on to.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from durably import agents, boundaries
from durably.agents.registry import (
    Registry,
    queues_of,
    undeclared_tools,
)
from durably.calling import Hook, Hooks
from durably.config import Settings
from durably.deciding import OPERATOR
from durably.dispatch.choice import Dispatching
from durably.effects import DEFAULT, EffectPolicy
from durably.enqueueing import Enqueueing
from durably.errors import ConfigError, LedgerUnavailable, RunSuspended
from durably.execution.executor import Executor
from durably.here import drain_here, run_here
from durably.intake import ChildIntake, JobIntake, signal_payload
from durably.ledger import reads, threads, waits
from durably.ledger.connect import database_for
from durably.notifying import Notifier
from durably.records import (
    INBOX_KINDS,
    InboxItem,
)
from durably.run import Run
from durably.worker import (
    DEFAULT_CONCURRENCY,
    DEFAULT_GRACE_SECONDS,
    DEFAULT_LEASE_SECONDS,
    Worker,
    WorkerOptions,
)

if TYPE_CHECKING:
    from durably.agents.history import ModelMessage
    from durably.agents.registry import AbstractAgent, AnyAgent, Prompt
    from durably.ledger.database import Clock, Database
    from durably.prices import Price

OutputT = TypeVar("OutputT")

log = logging.getLogger("durably")


class Durably(Enqueueing):
    """Durable runs of pydantic-ai agents, in one database.

    Args:
        url: ``sqlite:///path/to/file.db`` (also a plain path), or ``postgresql://host/database``.
            Default: ``DURABLY_URL``, else ``[tool.durably]`` in pyproject.toml or durably.toml,
            else ``sqlite:///durably.db``.
        agents: agents to register with default options; see `register` for others.
        default_effect: the policy of tools that declare none; ``effects.once()`` by default.
        prices: what models cost that pydantic-ai has no price for, or another one, by
            ``provider:model`` or ``model``.
        clock: what the ledger takes for the time; its own by default. For tests: see
            `durably.testing.Clock`.

    Attributes:
        after_enqueue: awaited with each new run before `enqueue` returns it, unless ``conn`` is
            given. For tests: see `durably.testing.inline`.

    Raises:
        ConfigError: the URL names no database that durably knows, or a price is none.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        agents: Iterable[AnyAgent] = (),
        default_effect: Mapping[str, Any] | EffectPolicy = DEFAULT,
        prices: Mapping[str, Price] | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(Settings.load(url=url), Registry(prices), clock, default_effect)
        self._hooks = Hooks()
        self._was_away = False
        for agent in agents:
            self.register(agent)

    def move_to(self, url: str) -> None:
        """Use another ledger, and tell nobody what waits there: to try the application out.

        Call it before anything else is done; the hooks of `on_waiting` are forgotten.

        Raises:
            ConfigError: the URL names no database that durably knows.
        """
        self._exchange(database_for(url), replace(self.settings, url=url))
        self._hooks = Hooks()

    # --- threads and people

    async def conversation(self, thread: str) -> list[ModelMessage]:
        """The messages of a thread so far, as pydantic-ai's own: what its next run starts from.

        Those of all its runs, in order; also of one that is going, as far as it is checkpointed.
        Calls that a run left without an answer when it ended are answered as the next run sees it.
        """
        await self.open()
        return agents.earlier.conversation(await self.ledger.read(threads.list_earlier, thread))

    async def inbox(
        self,
        *,
        agent: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        kind: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[InboxItem]:
        """Everything that waits for a person, oldest first.

        Args:
            kind: ``"approval"``, ``"answer"``, ``"question"``, ``"doubt"`` or ``"budget"``.
            after: the ``cursor`` of the last item of the page before.
            limit: how many at most; by default all.

        Raises:
            ConfigError: ``kind`` is none of these, or ``after`` is no cursor.
        """
        if kind is not None and kind not in INBOX_KINDS:
            raise ConfigError(f"{kind!r} waits for nobody; use one of: {', '.join(INBOX_KINDS)}.")
        await self.open()
        place = None if after is None else reads.InboxPlace.after(after)
        return await self.ledger.read(reads.list_inbox, agent, queue, tag, kind, place, limit)

    async def signal(
        self,
        key: str,
        name: str,
        payload: Any = None,
        *,
        signal_id: str | None = None,
        by: str = OPERATOR,
    ) -> Run[Any]:
        """Send a signal to a run: to the oldest `durably.wait_for_signal` of this name.

        If none waits yet, the next one takes it. It arrives exactly once.

        Args:
            payload: any JSON value, which the wait returns.
            signal_id: the sender's own id of it: sent again under the same id, it does nothing.
            by: who sends it; kept with it.

        Raises:
            RunNotFound: no run has the key.
            TransitionRefused: the run is over.
            ConfigError: the name or the payload cannot be.
        """
        text = signal_payload(name, payload)
        await self.open()
        boundaries.reached("signal:before")
        sent = await self.ledger.write(waits.send_signal, key, name, text, by, signal_id)
        boundaries.reached("signal:after")
        return self._handle(sent)

    def on_waiting[HookT: Hook](self, hook: HookT) -> HookT:
        """Have a hook called whenever something begins to wait for a person, or is escalated.

        ``@app.on_waiting`` above a function, sync or async, that takes a `durably.Waiting`; or
        ``app.on_waiting(durably.hooks.slack(url))``. Workers call it, at least once for each thing
        that waits: again, after a while that grows to an hour, if it raises or takes longer than
        30 seconds, or if the worker dies; for about three days, and as long as it waits. It never
        holds up a run. All workers of one ledger should have the same hooks.

        Returns:
            The hook.

        Raises:
            ConfigError: it cannot be called.
        """
        self._hooks.add(hook)
        return hook

    # --- working

    @asynccontextmanager
    async def worker(
        self,
        queues: Mapping[str, int] | None = None,
        *,
        lease: float | None = None,
        grace: float | None = None,
        name: str | None = None,
        oban: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[Worker]:
        """A worker inside this process; leaves gracefully when the block ends.

        Args:
            queues: how many runs of each queue at once, unless it is scaled; default: every queue
                that the registered agents use, 20 each.
            lease: seconds without a heartbeat after which it counts as dead; default 30.
            grace: seconds that attempts may go on when it leaves; default 30.
            name: for people; default: the host's name.
            oban: on Postgres, options for `oban.Oban`, such as ``{"metrics": True}`` for Oban Web.

        Raises:
            ConfigError: an option cannot work.
        """
        options = WorkerOptions(
            queues=queues or self.default_queues(),
            lease_seconds=_first(lease, self.settings.lease, DEFAULT_LEASE_SECONDS),
            grace_seconds=_first(grace, self.settings.grace, DEFAULT_GRACE_SECONDS),
        )
        dispatching = Dispatching(JobIntake(self.registry), oban or {})
        if name:
            options = replace(options, name=name)
        try:
            await self.open()
            worker = Worker(self.ledger, self._executor, options, dispatching, self._hooks)
            await worker.start(after_outage=self._was_away)
        except LedgerUnavailable:
            self._was_away = True
            raise
        self._was_away = False
        self._name_undeclared_tools()
        try:
            yield worker
        finally:
            await worker.stop()

    def default_queues(self) -> dict[str, int]:
        """Every queue that the registered agents use, 20 runs each."""
        found = [queue for r in self.registry.all().values() for queue in sorted(queues_of(r))]
        queues = dict.fromkeys(found, DEFAULT_CONCURRENCY)
        return queues or {"agents": DEFAULT_CONCURRENCY}

    async def run(
        self,
        agent: AbstractAgent[Any, OutputT],
        prompt: Prompt,
        *,
        key: str | None = None,
        **options: Any,
    ) -> OutputT:
        """Enqueue and execute here; a script that is run again with the same key continues.

        Executes its own run also while the queue is paused, and the children that it starts. While
        the run sleeps, or waits for a child, this waits with it. A run of a thread waits for its
        turn; nothing here executes those before it.

        Args:
            options: as for `enqueue`.

        Raises:
            RunSuspended: the run waits for a decision, or a signal; nothing is lost, run it again
                after.
            RunDiscarded, RunCancelled: it ended without an output.
        """
        run = await self.enqueue(agent, prompt, key=key, **options)
        lease = self.settings.lease or DEFAULT_LEASE_SECONDS
        try:
            return await run_here(self.ledger, self._executor, run, lease)
        except RunSuspended:
            await Notifier(self.ledger, self._hooks).send_due()
            raise

    async def drain(self, queues: Mapping[str, int] | None = None) -> int:
        """Work until nothing is due any more; returns how many attempts were made. For tests.

        Paused queues are left alone. Hooks are called for what waits then.
        """
        await self.open()
        attempts = await drain_here(self.ledger, self._executor, queues or self.default_queues())
        await Notifier(self.ledger, self._hooks).send_due()
        return attempts

    async def __aenter__(self) -> Durably:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @contextmanager
    def using(self, ledger: Database, url: str | None = None) -> Generator[None]:
        """Work on another ledger within the block. For tests: see `durably.testing`.

        Args:
            url: its URL, if that is another one.
        """
        before = self.ledger, self.settings
        self._exchange(ledger, replace(self.settings, url=url or self.settings.url))
        try:
            yield
        finally:
            self._exchange(*before)

    # --- inside

    def _exchange(self, ledger: Database, settings: Settings) -> None:
        self.ledger, self.settings = ledger, settings
        vars(self).pop("_executor", None)

    @cached_property
    def _executor(self) -> Executor:
        return Executor(
            self.ledger, agents.runner.Runner(self.registry, ChildIntake(self.registry))
        )

    def _name_undeclared_tools(self) -> None:
        """List, once, the tools that say nothing about repeating them."""
        for registration in self.registry.all().values():
            names = undeclared_tools(registration.agent)
            if names:
                log.info(
                    "agent %r: %s run under the default policy, %s; declare what repeating them "
                    "would do: @agent.tool(metadata=effects.READ), effects.IDEMPOTENT, "
                    "effects.TRANSACTIONAL or effects.once(...)",
                    registration.name,
                    ", ".join(names),
                    registration.default_effect,
                )


def _first[T](*values: T | None) -> T:
    return next(value for value in values if value is not None)
