"""``Durably``: the public API; wires ledger, agents and workers together.

Owns no rule of its own: what a call means is in the part that it is passed on to.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from durably.agents.codec import encode_prompt
from durably.agents.registry import OnChange, Registration, Registry, name_of, undeclared_tools
from durably.agents.runner import Runner
from durably.config import Settings
from durably.effects import DEFAULT, EffectPolicy, as_policy
from durably.errors import ConfigError, KeyConflict, SchemaError
from durably.execution.executor import Executor
from durably.health import examine
from durably.ledger import reads, runs
from durably.ledger.connect import database_for
from durably.ledger.rows import timestamp
from durably.lifecycle import FINAL, RunState
from durably.records import Finding, InboxItem, NewRun, QueueRecord, RunRecord, WorkerRecord
from durably.retry import RetryPolicy
from durably.run import Run
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

HERE_SECONDS = 0.1
"""How often `Durably.run` looks whether a run that is not due, or is held elsewhere, is now its."""


class Durably:
    """Durable runs of pydantic-ai agents, in one database.

    Args:
        url: ``sqlite:///path/to/file.db`` (also a plain path). Default: ``DURABLY_URL``, else
            ``[tool.durably]`` in pyproject.toml or durably.toml, else ``sqlite:///durably.db``.
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
        self._executor = Executor(self.ledger, Runner(self.registry))
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
            conn: the caller's own open transaction on the ledger's database (a sqlite3
                connection, or SQLAlchemy's): the run exists once the caller commits, and does not
                if they roll back.

        Raises:
            KeyConflict: the key belongs to a run of another agent, prompt or args.
            ConfigError: an option cannot work.
        """
        new = self._new_run(
            agent, prompt, key, args, queue, priority, max_attempts, tags, meta, unique_for
        )
        if scheduled_at is not None:
            if scheduled_at.tzinfo is None:
                raise ConfigError("scheduled_at has no time zone: write datetime.now(UTC) + …")
            new = replace(new, scheduled_at=timestamp(scheduled_at))
        new = replace(new, delay_seconds=delay)
        await self.open()
        if conn is not None:
            record, created = self.ledger.run_on(conn, runs.insert(new))
            found = (
                record,
                None if created else self.ledger.run_on(conn, reads.get_input(record.id)),
            )
        else:
            record, created = await self.ledger.write(runs.insert, new)
            found = record, None if created else await self.ledger.read(reads.get_input, record.id)
        _check_same(new, *found)
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

    async def inbox(self) -> list[InboxItem]:
        """Everything that waits for a person, oldest first."""
        await self.open()
        return await self.ledger.read(reads.list_inbox)

    async def workers(self) -> list[WorkerRecord]:
        """The workers, alive or lately dead."""
        await self.open()
        return await self.ledger.read(reads.list_workers)

    async def queues(self) -> list[QueueRecord]:
        """Every queue with runs, and how many in which state."""
        await self.open()
        return await self.ledger.read(reads.list_queues)

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
    ) -> AsyncGenerator[Worker]:
        """A worker inside this process; leaves gracefully when the block ends.

        Args:
            queues: how many runs of each queue at once; default: every queue that the registered
                agents use, 20 each.
            lease: seconds without a heartbeat after which it counts as dead; default 30.
            grace: seconds that attempts may go on when it leaves; default 30.
            name: for people; default: the host's name.
        """
        await self.open()
        self._name_undeclared_tools()
        options = WorkerOptions(
            queues=queues or self.default_queues(),
            lease_seconds=_first(lease, self.settings.lease, DEFAULT_LEASE_SECONDS),
            grace_seconds=_first(grace, self.settings.grace, DEFAULT_GRACE_SECONDS),
        )
        worker = Worker(
            self.ledger, self._executor, replace(options, name=name) if name else options
        )
        await worker.start()
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

        Args:
            options: as for `enqueue`.

        Raises:
            RunSuspended: the run waits for a decision; nothing is lost, run it again after.
            RunDiscarded, RunCancelled: it ended without an output.
        """
        run = await self.enqueue(agent, prompt, key=key, **options)
        queue = {run.record.queue: 1}
        worker = Worker(self.ledger, self._executor, WorkerOptions(queues=queue))
        await worker.start(dispatch=False)
        try:
            return await self._execute_here(run, worker)
        finally:
            await worker.stop()

    async def drain(self, queues: Mapping[str, int] | None = None) -> int:
        """Work until nothing is due any more; returns how many attempts were made. For tests."""
        await self.open()
        queues = queues or self.default_queues()
        worker = Worker(self.ledger, self._executor, WorkerOptions(queues=queues))
        await worker.start(dispatch=False)
        attempts = 0
        try:
            while True:
                claimed = [
                    run
                    for queue, limit in queues.items()
                    for run in await self.ledger.write(runs.claim, worker.id, queue, limit)
                ]
                if not claimed:
                    return attempts
                await asyncio.gather(*(worker.execute(run) for run in claimed))
                attempts += len(claimed)
        finally:
            await worker.stop()

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
        """Open the ledger and say which schema version was there (0: none), and which is now."""
        await self.open()
        return self.ledger.versions

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

    def _new_run(
        self,
        agent: AnyAgent | str,
        prompt: Prompt,
        key: str | None,
        args: Mapping[str, Any] | None,
        queue: str | None,
        priority: int,
        max_attempts: int | None,
        tags: Iterable[str],
        meta: Mapping[str, Any] | None,
        unique_for: float | None,
    ) -> NewRun:
        name = name_of(agent)
        if not isinstance(agent, str) and self.registry.find(name) is None:
            self.register(agent)
        if key is not None and unique_for is not None:
            raise ConfigError("Give key= or unique_for=, not both: a key is unique for ever.")
        if key is not None and not key.strip():
            raise ConfigError("The key is empty.")
        if not 0 <= priority <= 9:
            raise ConfigError(f"priority={priority}: 0 (first) to 9.")
        registration = self.registry.find(name)
        defaults = registration or Registration(name=name, agent=None)  # type: ignore[arg-type]
        prompt_json, args_json = encode_prompt(prompt), _json_object("args", args)
        twin = hashlib.sha256(f"{name}\n{prompt_json}\n{args_json}".encode()).hexdigest()
        return NewRun(
            key=key or f"{name}-{uuid.uuid4().hex[:12]}",
            agent=name,
            prompt=prompt_json,
            queue=queue or defaults.queue,
            priority=priority,
            max_attempts=_first(max_attempts, defaults.max_attempts),
            args=args_json,
            tags=json.dumps(list(tags)),
            meta=_json_object("meta", meta),
            fingerprint=twin if unique_for is not None else None,
            unique_seconds=unique_for,
        )

    async def _execute_here(self, run: Run[OutputT], worker: Worker) -> OutputT:
        """Claim and execute the run until it ends; wait where another worker has it."""
        while True:
            await run.refresh()
            if run.state.final or run.state is RunState.SUSPENDED:
                return await run.result(wait_suspended=False)
            if run.state is not RunState.EXECUTING:
                claimed = await self.ledger.write(runs.claim_one, worker.id, run.record.id)
                if claimed is not None:
                    await worker.execute(claimed)
                    continue
            await asyncio.sleep(HERE_SECONDS)

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


def _check_same(new: NewRun, record: RunRecord, existing: object) -> None:
    """Refuse a key that already means something else."""
    if existing is None or new.unique_seconds is not None:
        return
    prompt, args = getattr(existing, "prompt", None), getattr(existing, "args", None)
    different = [
        what
        for what, same in (
            (f"agent ({record.agent!r})", record.agent == new.agent),
            ("prompt", prompt == new.prompt),
            ("args", args == json.loads(new.args)),
        )
        if not same
    ]
    if different:
        raise KeyConflict(
            f"The key {new.key!r} belongs to a run with another {' and '.join(different)}; "
            "use another key for another run."
        )


def _json_object(what: str, value: Mapping[str, Any] | None) -> str:
    try:
        return json.dumps(dict(value or {}), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}= must be a JSON object: {error}.") from error


def _first[T](*values: T | None) -> T:
    return next(value for value in values if value is not None)
