"""``Durably``: the public API; wires ledger, agents and workers together.

Owns no rule of its own: what a call means is in the part that it is passed on to.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from durably import agents, boundaries
from durably.agents.registry import OnChange, Registration, Registry, name_of, undeclared_tools
from durably.config import Settings
from durably.dispatch.choice import Dispatching
from durably.effects import DEFAULT, EffectPolicy, as_policy
from durably.errors import ConfigError, LedgerUnavailable, SchemaError
from durably.execution.executor import Executor
from durably.health import examine
from durably.here import drain_here, run_here
from durably.intake import ChildIntake, JobIntake, check_same, new_run, signal_payload
from durably.ledger import queues, reads, runs, waits
from durably.ledger.connect import database_for
from durably.ledger.operations import Operation
from durably.lifecycle import FINAL, RunState
from durably.records import (
    INBOX_KINDS,
    Finding,
    InboxItem,
    NewRun,
    QueueRecord,
    QueueSetting,
    RunInput,
    RunRecord,
    WorkerRecord,
)
from durably.retry import RetryPolicy
from durably.run import OPERATOR, Run
from durably.worker import (
    DEFAULT_CONCURRENCY,
    DEFAULT_GRACE_SECONDS,
    DEFAULT_LEASE_SECONDS,
    Worker,
    WorkerOptions,
)

if TYPE_CHECKING:
    from durably.agents.registry import AbstractAgent, AnyAgent, Prompt, UsageLimits
    from durably.ledger.database import Database

OutputT = TypeVar("OutputT")

log = logging.getLogger("durably")


class Durably:
    """Durable runs of pydantic-ai agents, in one database.

    Args:
        url: ``sqlite:///path/to/file.db`` (also a plain path), or ``postgresql://host/database``.
            Default: ``DURABLY_URL``, else ``[tool.durably]`` in pyproject.toml or durably.toml,
            else ``sqlite:///durably.db``.
        agents: agents to register with default options; see `register` for others.
        default_effect: the policy of tools that declare none; ``effects.once()`` by default.

    Raises:
        ConfigError: the URL names no database that durably knows.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        agents: Iterable[AnyAgent] = (),
        default_effect: Mapping[str, Any] | EffectPolicy = DEFAULT,
    ) -> None:
        self.settings = Settings.load(url=url)
        self.ledger: Database = database_for(self.settings.url)
        self.registry = Registry()
        self._default_effect = as_policy(default_effect)
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
            )
        )

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
            conn: the caller's own open transaction on the ledger's database (a connection of
                sqlite3, psycopg or SQLAlchemy): the run exists once the caller commits, and does
                not if they roll back. Open the app before that transaction begins.

        Raises:
            KeyConflict: the key belongs to a run of another agent, prompt or args.
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
        )
        if conn is not None:
            await self.ledger.open_beside(conn)
            record, asked = await self.ledger.run_on(conn, _insert(new))
        else:
            await self.open()
            record, asked = await self.ledger.write(_insert, new)
        if asked is not None:
            check_same(new, record, asked)
        return Run(self.ledger, self.registry, record)

    async def get(self, key: str) -> Run[Any]:
        """The run with this key.

        Raises:
            RunNotFound: there is none.
        """
        await self.open()
        return self._handle(await self.ledger.read(reads.get_run, key))

    async def runs(
        self,
        *,
        state: str | None = None,
        agent: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Run[Any]]:
        """Runs, newest first.

        Args:
            before: ``run.record.id`` of the last run of the page before.

        Raises:
            ConfigError: ``state`` is no state.
        """
        if state is not None and state not in set(RunState):
            raise ConfigError(f"{state!r} is no state; use one of: {', '.join(RunState)}.")
        await self.open()
        found = await self.ledger.read(reads.list_runs, state, agent, queue, tag, before, limit)
        return [self._handle(record) for record in found]

    async def inbox(
        self,
        *,
        agent: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        kind: str | None = None,
    ) -> list[InboxItem]:
        """Everything that waits for a person, oldest first.

        Args:
            kind: ``"approval"``, ``"answer"``, ``"question"`` or ``"doubt"``.

        Raises:
            ConfigError: ``kind`` is none of these.
        """
        if kind is not None and kind not in INBOX_KINDS:
            raise ConfigError(f"{kind!r} waits for nobody; use one of: {', '.join(INBOX_KINDS)}.")
        await self.open()
        return await self.ledger.read(reads.list_inbox, agent, queue, tag, kind)

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

    async def workers(self) -> list[WorkerRecord]:
        """The workers, alive or lately dead."""
        await self.open()
        return await self.ledger.read(reads.list_workers)

    # --- queues

    async def queues(self) -> list[QueueRecord]:
        """Every queue that has runs, or a live worker, or that was paused or scaled."""
        await self.open()
        return await self.ledger.read(reads.list_queues)

    async def pause(self, queue: str) -> QueueSetting:
        """Let no attempt of a queue begin, on any worker, until `resume`.

        Attempts under way go on. The queue may have no run yet. Workers that start later keep to
        it as well; `run` does not, because it executes its own run.

        Raises:
            ConfigError: no queue can be called that.
        """
        await self.open()
        return await self.ledger.write(queues.pause, queue)

    async def resume(self, queue: str) -> QueueSetting:
        """Let attempts of a queue begin again; does nothing if it is not paused.

        Raises:
            ConfigError: no queue can be called that.
        """
        await self.open()
        return await self.ledger.write(queues.resume, queue)

    async def scale(self, queue: str, limit: int | None) -> QueueSetting:
        """Let every worker that serves a queue execute ``limit`` of its runs at once.

        It holds for each worker, not for all together, and wins over what each was started with.
        Where more are under way, they go on and end.

        Args:
            limit: from 1; None lets each worker go back to its own.

        Raises:
            ConfigError: no queue can be called that, or the limit cannot be.
        """
        await self.open()
        return await self.ledger.write(queues.scale, queue, limit)

    # --- house-keeping

    async def prune(
        self, *, older_than: float, state: str | None = None, batch: int = 500
    ) -> AsyncGenerator[int]:
        """Delete final runs that ended more than ``older_than`` seconds ago.

        Yields:
            How many have been deleted so far, after each batch.

        Raises:
            ConfigError: ``state`` is no final state.
        """
        _check_prunable(state)
        await self.open()
        deleted = 0
        while count := await self.ledger.write(runs.prune, older_than, state, batch):
            deleted += count
            yield deleted

    async def count_prunable(self, *, older_than: float, state: str | None = None) -> int:
        """How many runs `prune` would delete."""
        _check_prunable(state)
        await self.open()
        return await self.ledger.read(reads.count_prunable, older_than, state)

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
            worker = Worker(self.ledger, self._executor, options, dispatching)
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
        queues = {r.queue: DEFAULT_CONCURRENCY for r in self.registry.all().values()}
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
        the run sleeps, or waits for a child, this waits with it.

        Args:
            options: as for `enqueue`.

        Raises:
            RunSuspended: the run waits for a decision, or a signal; nothing is lost, run it again
                after.
            RunDiscarded, RunCancelled: it ended without an output.
        """
        run = await self.enqueue(agent, prompt, key=key, **options)
        lease = self.settings.lease or DEFAULT_LEASE_SECONDS
        return await run_here(self.ledger, self._executor, run, lease)

    async def drain(self, queues: Mapping[str, int] | None = None) -> int:
        """Work until nothing is due any more; returns how many attempts were made. For tests.

        Paused queues are left alone.
        """
        await self.open()
        return await drain_here(self.ledger, self._executor, queues or self.default_queues())

    # --- opening and closing

    async def open(self, *, create: bool = True) -> None:
        """Open the ledger, creating or upgrading its tables; every call does it when needed.

        Args:
            create: False refuses where there is no ledger yet.

        Raises:
            LedgerUnavailable, LedgerCorrupt, SchemaError: it cannot be used; the message says why.
        """
        if not create and not await self.ledger.exists():
            raise SchemaError(
                f"There is no ledger at {self.ledger.url}: check the URL, or create it with "
                "`durably migrate`."
            )
        await self.ledger.open()

    async def migrate(self) -> tuple[int, int]:
        """Make the ledger's tables, or bring them up to date, and open it.

        Returns:
            Which schema version was there (0: none), and which is now.
        """
        await self.ledger.migrate()
        return self.ledger.versions

    async def migration_sql(self, found: int | None = None) -> str:
        """What `migrate` would do on PostgreSQL, as a script for somebody who may; changes nothing.

        Args:
            found: the schema version that is there (0: none); by default it is looked up.

        Raises:
            ConfigError: a ledger on SQLite needs no script; or there is no such version.
        """
        return await self.ledger.migration_sql(found)

    async def examine(self) -> list[Finding]:
        """What is right and wrong with the ledger, the workers, the queues and the agents."""
        return await examine(self.ledger, self.registry)

    async def close(self) -> None:
        """Let go of the ledger; the next call opens it again."""
        await self.ledger.close()

    async def __aenter__(self) -> Durably:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- inside

    def _handle(self, record: RunRecord) -> Run[Any]:
        return Run(self.ledger, self.registry, record)

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


def _check_prunable(state: str | None) -> None:
    if state is not None and state not in FINAL:
        raise ConfigError(f"{state!r} runs are not pruned; use one of: {', '.join(sorted(FINAL))}.")


def _insert(new: NewRun) -> Operation[tuple[RunRecord, RunInput | None]]:
    """Insert a run; or the run that is there already, and what that was asked."""
    record, created = yield from runs.insert(new)
    return record, None if created else (yield from reads.get_input(record.id))


def _first[T](*values: T | None) -> T:
    return next(value for value in values if value is not None)
