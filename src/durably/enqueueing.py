"""Registering agents, and storing runs of them.

Owns what enqueueing asks of the ledger, and in whose transaction; what a run may be asked is
`intake`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from durably.agents.registry import OnChange, Registration, Registry, name_of
from durably.budgets import NO_LIMIT, Budget
from durably.effects import EffectPolicy, as_policy
from durably.errors import LedgerUnavailable
from durably.execution.interrupts import interrupt_for
from durably.intake import check_same, many_runs, new_run
from durably.ledger import reads, runs
from durably.ledger.operations import Operation, brief
from durably.records import NewRun, RunInput, RunRecord
from durably.retry import RetryPolicy
from durably.run import Run
from durably.searching import Searching

if TYPE_CHECKING:
    from durably.agents.registry import AbstractAgent, AnyAgent, Prompt, UsageLimits
    from durably.config import Settings
    from durably.ledger.database import Clock

OutputT = TypeVar("OutputT")

OnBusy = Literal["queue", "reject", "interrupt", "steer"]

log = logging.getLogger("durably")


class Enqueueing(Searching):
    """`Durably`, as far as runs are made; see there.

    Args:
        default_effect: the policy of tools that declare none.

    Attributes:
        after_enqueue: awaited with each new run before `enqueue` returns it, unless ``conn`` is
            given. For tests: see `durably.testing.inline`.
    """

    after_enqueue: Callable[[Run[Any]], Awaitable[None]] | None = None

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        clock: Clock | None,
        default_effect: Mapping[str, Any] | EffectPolicy,
    ) -> None:
        super().__init__(settings, registry, clock)
        self._default_effect = as_policy(default_effect)

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

    def _name_of(self, agent: AnyAgent | str) -> str:
        """The agent's name; an agent that is not registered yet is, with default options."""
        name = name_of(agent)
        if not isinstance(agent, str) and self.registry.find(name) is None:
            self.register(agent)
        return name


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
