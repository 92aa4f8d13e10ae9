"""``Durably``: the public API; wires ledger, agents and workers together.

Owns no rule of its own: what a call means is in the part that it is passed on to.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from durably import agents, boundaries
from durably.agents.registry import (
    OnChange,
    Registration,
    Registry,
    name_of,
    queues_of,
    undeclared_tools,
)
from durably.budgets import NO_LIMIT, Budget
from durably.calling import Hook, Hooks
from durably.config import Settings
from durably.deciding import OPERATOR
from durably.dispatch.choice import Dispatching
from durably.effects import DEFAULT, EffectPolicy, as_policy
from durably.errors import ConfigError, LedgerUnavailable, RunSuspended
from durably.execution.executor import Executor
from durably.execution.interrupts import interrupt_for
from durably.here import drain_here, run_here
from durably.intake import ChildIntake, JobIntake, check_same, many_runs, new_run, signal_payload
from durably.ledger import reads, runs, threads, waits
from durably.ledger.connect import database_for
from durably.ledger.operations import Operation, brief
from durably.notifying import Notifier
from durably.records import (
    INBOX_KINDS,
    InboxItem,
    NewRun,
    RunInput,
    RunRecord,
)
from durably.retry import RetryPolicy
from durably.run import Run
from durably.searching import Searching
from durably.worker import (
    DEFAULT_CONCURRENCY,
    DEFAULT_GRACE_SECONDS,
    DEFAULT_LEASE_SECONDS,
    Worker,
    WorkerOptions,
)

if TYPE_CHECKING:
    from durably.agents.history import ModelMessage
    from durably.agents.registry import AbstractAgent, AnyAgent, Prompt, UsageLimits
    from durably.ledger.database import Clock, Database
    from durably.prices import Price

OutputT = TypeVar("OutputT")

OnBusy = Literal["queue", "reject", "interrupt", "steer"]

log = logging.getLogger("durably")


class Durably(Searching):
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

    after_enqueue: Callable[[Run[Any]], Awaitable[None]] | None = None

    def __init__(
        self,
        url: str | None = None,
        *,
        agents: Iterable[AnyAgent] = (),
        default_effect: Mapping[str, Any] | EffectPolicy = DEFAULT,
        prices: Mapping[str, Price] | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(Settings.load(url=url), Registry(prices), clock)
        self._default_effect = as_policy(default_effect)
        self._hooks = Hooks()
        self._was_away = False
        for agent in agents:
            self.register(agent)

    # --- agents

    def register(
        self,
        agent: AnyAgent,
        *,
        deps: Any = None,
        queue: str = "agents",
        max_attempts: int = 5,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        usage_limits: UsageLimits | None = None,
        on_change: OnChange = "continue",
        default_effect: Mapping[str, Any] | EffectPolicy | None = None,
        budget: Budget | None = None,
        stream: bool = False,
    ) -> None:
        """Make an agent known under its name, with how its runs are executed.

        Args:
            deps: the agent's deps, or a factory called as ``deps(run)`` with a
                `durably.RunInfo`; sync or async, also returning a context manager.
            queue: where its runs wait by default.
            max_attempts: failed attempts after which a run is discarded; crashes of the worker
                are counted apart, up to the same number.
            timeout: seconds that one attempt may take; no limit by default.
            retry: backoff between failed attempts.
            usage_limits: pydantic-ai's limits, meant for the whole run over all its attempts.
            on_change: what to do with a run in whose middle the agent's instructions, tools or
                model changed: ``"continue"``, ``"suspend"`` or ``"discard"``.
            default_effect: the policy of this agent's tools that declare none.
            budget: what each of its runs may spend, over all its attempts, and what happens then.
            stream: True asks its model for streams, and shows messages while they are made, to
                whoever watches (see `Run.watch`). Its model must be able to stream.

        Raises:
            ConfigError: the agent has no name, its name is taken, or an option cannot work.
        """
        policy = self._default_effect if default_effect is None else as_policy(default_effect)
        self.registry.add(
            Registration(
                name=name_of(agent),
                agent=agent,
                deps=deps,
                queue=queue,
                max_attempts=max_attempts,
                timeout_seconds=timeout,
                retry=retry or RetryPolicy(),
                usage_limits=usage_limits,
                on_change=on_change,
                default_effect=policy,
                budget=budget or NO_LIMIT,
                stream=stream,
            )
        )

    def move_to(self, url: str) -> None:
        """Use another ledger, and tell nobody what waits there: to try the application out.

        Call it before anything else is done; the hooks of `on_waiting` are forgotten.

        Raises:
            ConfigError: the URL names no database that durably knows.
        """
        self._exchange(database_for(url), replace(self.settings, url=url))
        self._hooks = Hooks()

    # --- runs

    async def enqueue(
        self,
        agent: AbstractAgent[Any, OutputT] | str,
        prompt: Prompt,
        *,
        key: str | None = None,
        args: Mapping[str, Any] | None = None,
        queue: str | None = None,
        priority: int = 0,
        max_attempts: int | None = None,
        delay: float = 0.0,
        scheduled_at: datetime | None = None,
        tags: Iterable[str] = (),
        meta: Mapping[str, Any] | None = None,
        unique_for: float | None = None,
        thread: str | None = None,
        on_busy: OnBusy = "queue",
        budget: Budget | None = None,
        stream: bool | None = None,
        conn: object | None = None,
    ) -> Run[OutputT]:
        """Store a run; once this returns, the run will reach an end, or say what it waits for.

        Args:
            agent: a registered agent or its name. An unknown name is accepted here, for
                applications that enqueue in one process and execute in another.
            prompt: what the agent is asked.
            key: unique among all runs; an existing key returns its run. Default: a random one.
            args: a JSON object for the agent's deps factory.
            queue: default: the agent's.
            priority: 0 (first) to 9.
            max_attempts: default: the agent's.
            delay: seconds until it is due.
            scheduled_at: when it is due, instead of ``delay``; with a time zone.
            tags: labels to find it by.
            meta: JSON for the application's own use.
            unique_for: seconds in which the same agent, prompt and args return the run that is
                there already; instead of ``key``.
            thread: the conversation that it continues: runs of a thread go one at a time, in
                order, each from the history of those before it.
            on_busy: what it does while another run of its thread is going: ``"queue"``: it waits
                for its turn; ``"reject"``: nothing is stored; ``"interrupt"``: the other is
                cancelled, and what it did stays in the conversation; ``"steer"``: the running
                agent sees the prompt before its next model request, and the two end together.
            budget: what it may spend; where it has no limit, the agent's holds.
            stream: whether its messages are shown while they are made; default: as its agent was
                registered.
            conn: the caller's own open transaction on the ledger's database (a connection of
                sqlite3, psycopg or SQLAlchemy): the run exists once the caller commits, and does
                not if they roll back. Open the app before that transaction begins.

        Raises:
            KeyConflict: the key belongs to a run of another agent, prompt, args or thread.
            ThreadBusy: a run of the thread is going, and ``on_busy="reject"``.
            ConfigError: an option cannot work.
        """
        name = self._name_of(agent)
        new = new_run(
            name,
            prompt,
            self.registry.find(name),
            key=key,
            args=args,
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            delay=delay,
            scheduled_at=scheduled_at,
            tags=tags,
            meta=meta,
            unique_for=unique_for,
            thread=thread,
            on_busy=on_busy,
            budget=budget,
            stream=stream,
        )
        if conn is not None:
            await self.ledger.open_beside(conn)
            record, asked = await self.ledger.run_on(conn, _insert(new))
        else:
            await self.open()
            record, asked = await self.ledger.write(_insert, new)
        if asked is not None:
            check_same(new, record, asked)
        run: Run[OutputT] = Run(self.ledger, self.registry, record)
        run.created = asked is None
        if asked is None and conn is None and on_busy == "interrupt":
            try:
                await interrupt_for(self.ledger, record)
                await run.refresh()
            except LedgerUnavailable as error:
                log.warning("run %r interrupts a little later: %s", run.key, error)
        if self.after_enqueue is not None and run.created and conn is None:
            await self.after_enqueue(run)
        return run

    async def enqueue_many(
        self,
        agent: AbstractAgent[Any, OutputT] | str,
        prompts: Iterable[Prompt],
        *,
        keys: Iterable[str] | None = None,
        args: Mapping[str, Any] | None = None,
        queue: str | None = None,
        priority: int = 0,
        max_attempts: int | None = None,
        delay: float = 0.0,
        scheduled_at: datetime | None = None,
        tags: Iterable[str] = (),
        meta: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        stream: bool | None = None,
        conn: object | None = None,
    ) -> list[Run[OutputT]]:
        """Store a run for each prompt, in one transaction: all of them, or none.

        Args:
            keys: one for each prompt, in order; an existing key returns its run. Default: random.

        The other options are as for `enqueue`, and the same for all.

        Returns:
            The runs, in the order of the prompts.

        Raises:
            KeyConflict: a key belongs to a run of another agent, prompt, args or thread.
            ConfigError: an option cannot work.
        """
        name = self._name_of(agent)
        alike = new_run(
            name,
            "",
            self.registry.find(name),
            key=None,
            args=args,
            queue=queue,
            priority=priority,
            max_attempts=max_attempts,
            delay=delay,
            scheduled_at=scheduled_at,
            tags=tags,
            meta=meta,
            unique_for=None,
            budget=budget,
            stream=stream,
        )
        given = None if keys is None else list(keys)
        asked = many_runs(alike, prompts, given)
        if conn is not None:
            await self.ledger.open_beside(conn)
            stored = await self.ledger.run_on(conn, _insert_many(alike, asked))
        else:
            await self.open()
            stored = await self.ledger.write(_insert_many, alike, asked)
        found: dict[str, Run[OutputT]] = {}
        for record, created in stored:
            run = found[record.key] = Run(self.ledger, self.registry, record)
            run.created = created
            if self.after_enqueue is not None and created and conn is None:
                await self.after_enqueue(run)
        return [found[key] for key in given or asked]

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

    def _name_of(self, agent: AnyAgent | str) -> str:
        """The agent's name; an agent that is not registered yet is, with default options."""
        name = name_of(agent)
        if not isinstance(agent, str) and self.registry.find(name) is None:
            self.register(agent)
        return name

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


@brief
def _insert(new: NewRun) -> Operation[tuple[RunRecord, RunInput | None]]:
    """Insert a run; or the run that is there already, and what that was asked."""
    record, created = yield from runs.insert(new, alone=True)
    return record, None if created else (yield from reads.get_input(record.id))


def _insert_many(
    alike: NewRun, asked: Mapping[str, str]
) -> Operation[list[tuple[RunRecord, bool]]]:
    """Insert runs, or find those that are there already; each with whether this call made it.

    Raises:
        KeyConflict: a key already means something else.
    """
    made = yield from runs.insert_many(alike, asked)
    stored: list[tuple[RunRecord, bool]] = []
    for key, prompt in asked.items():
        record = made.get(key)
        if record is None:
            record = yield from reads.get_run(key)
            known = yield from reads.get_input(record.id)
            check_same(replace(alike, key=key, prompt=prompt), record, known)
        stored.append((record, key in made))
    return stored


def _first[T](*values: T | None) -> T:
    return next(value for value in values if value is not None)
