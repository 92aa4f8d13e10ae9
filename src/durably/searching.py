"""Finding runs, and doing the same to many of them.

Owns how long a page may take and where the next begins; what matches is the ledger's, what is done
to a run the run's own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from durably.administration import Administration
from durably.deciding import OPERATOR
from durably.errors import ConfigError, RunNotFound, TransitionRefused
from durably.ledger import reads, search
from durably.ledger.search import Filters
from durably.lifecycle import OPEN, RunState
from durably.records import RunRecord
from durably.run import Run

SEARCH_SECONDS = 0.1
"""How long a page looks for more before it is handed out as it is."""

FIRST_STRETCH = 200
LONGEST_STRETCH = 10_000
LONGEST_TEXT_STRETCH = 1_000
"""How many runs are looked through at once; fewer where their prompts are read."""

MOST_AT_ONCE = 1000
"""How many runs one call may cancel or retry."""

TOGETHER = 10
"""How many of these are written at the same time."""


@dataclass(frozen=True, slots=True)
class RunsPage:
    """A page of a search, newest first.

    Attributes:
        runs: may be few, or none, although there are more: a page is handed out after about 0.1 s.
        next_before: what to give as ``before`` for the next page; None: there is none.
    """

    runs: list[Run[Any]]
    next_before: int | None

    @property
    def complete(self) -> bool:
        """True if nothing is left to look through."""
        return self.next_before is None


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What became of one run of many.

    Attributes:
        done: False: it was refused, and stays as it was.
        state: its state now; None: there is no such run.
        text: a sentence that says so, or why it was refused.
    """

    key: str
    done: bool
    state: RunState | None
    text: str


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What became of many runs.

    Attributes:
        runs: each that was looked at, in order; those that filters found newest first.
        next_before: where to go on with the same filters; None: nothing is left.
    """

    runs: list[RunOutcome]
    next_before: int | None

    @property
    def complete(self) -> bool:
        """True if nothing is left to look through."""
        return self.next_before is None

    @property
    def done(self) -> int:
        """How many of them it was done to."""
        return sum(run.done for run in self.runs)


class Searching(Administration):
    """A ledger as somebody sees it who looks for runs."""

    async def get(self, key: str) -> Run[Any]:
        """The run with this key.

        Raises:
            RunNotFound: there is none.
        """
        await self.open()
        return self._handle(await self.ledger.read(reads.get_run, key, alone=True))

    async def runs(
        self,
        *,
        state: str | None = None,
        agent: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        thread: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Run[Any]]:
        """Runs, newest first; as many as are asked for, however long it takes to find them.

        Args:
            before: ``run.record.id`` of the last run of the page before.

        Raises:
            ConfigError: ``state`` is no state.
        """
        _states_of(state)
        await self.open()
        found = await self.ledger.read(
            reads.list_runs, state, agent, queue, tag, before, limit, thread
        )
        return [self._handle(record) for record in found]

    async def search(
        self,
        *,
        state: str | Collection[str] | None = None,
        agent: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        thread: str | None = None,
        key: str | None = None,
        text: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> RunsPage:
        """A page of the runs that match everything that is given, newest first, in about 0.1 s.

        It looks through the runs from the newest on, for that long. A page may therefore hold few
        runs, or none, although there are more: ``next_before`` says where the next one begins.

        Args:
            state: one, or several.
            key, text: a part of the key; of the prompt, or of the error. It is looked for as it is,
                without wildcards; capital and small letters of ASCII are the same. A run whose
                whole key is ``key`` comes on the first page, wherever it stands.
            since, until: enqueued from then on, and before; with a time zone.
            before: ``next_before`` of the page before.

        Raises:
            ConfigError: there is no such state, a time has no time zone, or the limit is none.
        """
        filters = _filters(state, agent, queue, tag, thread, key, text, since, until)
        _check_limit(limit)
        await self.open()
        found, next_before = await self._search(filters, before, limit)
        return RunsPage([self._handle(record) for record in found], next_before)

    async def cancel_runs(
        self,
        *,
        keys: Sequence[str] | None = None,
        state: str | Collection[str] | None = None,
        agent: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        thread: str | None = None,
        key: str | None = None,
        text: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        by: str = OPERATOR,
        before: int | None = None,
        limit: int = 100,
    ) -> BulkResult:
        """Cancel many runs, each in a transaction of its own, as `Run.cancel` does.

        Either those with these ``keys``, or those that `search` finds with the same filters and
        that can be cancelled: up to ``limit`` of them, then go on with ``next_before``.

        Args:
            by: who cancels them; kept with each.
            before: ``next_before`` of the call before.

        Raises:
            ConfigError: as of `search`; both, or neither, of keys and filters are given; there are
                too many keys.
            LedgerUnavailable: the database went away in the middle; do it again for the others.
        """
        filters = _filters(state, agent, queue, tag, thread, key, text, since, until)

        async def cancel(run: Run[Any]) -> None:
            await run.cancel(by=by)

        return await self._bulk("cancel", OPEN, cancel, keys, filters, before, limit)

    async def retry_runs(
        self,
        *,
        keys: Sequence[str] | None = None,
        state: str | Collection[str] | None = None,
        agent: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        thread: str | None = None,
        key: str | None = None,
        text: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        by: str = OPERATOR,
        before: int | None = None,
        limit: int = 100,
    ) -> BulkResult:
        """Let many runs go on, each in a transaction of its own, as `Run.retry` does.

        Arguments, result and errors as of `cancel_runs`.
        """
        filters = _filters(state, agent, queue, tag, thread, key, text, since, until)

        async def retry(run: Run[Any]) -> None:
            await run.retry(by=by)

        return await self._bulk("retry", _RETRIED, retry, keys, filters, before, limit)

    # --- inside

    def _handle(self, record: RunRecord) -> Run[Any]:
        return Run(self.ledger, self.registry, record)

    async def _search(
        self, filters: Filters, before: int | None, limit: int
    ) -> tuple[list[RunRecord], int | None]:
        deadline = time.monotonic() + SEARCH_SECONDS
        found: list[RunRecord] = []
        if filters.key is not None:
            filters = replace(filters, other_than=filters.key)
            exact = None if before else await self.ledger.read(search.find_key, filters)
            found += [] if exact is None else [exact]
        after, newest = await self.ledger.read(search.find_ends, filters)
        place: int | None = newest if before is None else min(before, newest)
        size, longest = FIRST_STRETCH, LONGEST_STRETCH
        if filters.text is not None:
            longest = LONGEST_TEXT_STRETCH
        while place is not None and len(found) < limit:
            stretch = await self.ledger.read(
                search.look, filters, after, place, size, limit - len(found)
            )
            found += stretch.runs
            place, size = stretch.next_before, min(size * 2, longest)
            if time.monotonic() >= deadline:
                break
        return sorted(found, key=lambda record: -record.id), place

    async def _bulk(
        self,
        action: str,
        states: Collection[RunState],
        act: Callable[[Run[Any]], Awaitable[None]],
        keys: Sequence[str] | None,
        filters: Filters,
        before: int | None,
        limit: int,
    ) -> BulkResult:
        """Do something to the runs with these keys, or to a page of those that match and allow it.

        Args:
            states: what a run that allows it may be in.
        """
        _check_bulk(keys, filters, limit)
        await self.open()
        next_before: int | None = None
        if keys is None:
            wanted = [state for state in filters.states or RunState if state in states]
            if not wanted:
                return BulkResult([], None)
            possible = replace(filters, states=tuple(wanted))
            found, next_before = await self._search(possible, before, limit)
            runs = [run for run in map(self._handle, found) if action in run.actions_allowed]
        else:
            runs = list(dict.fromkeys(keys))
        turn = asyncio.Semaphore(TOGETHER)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._act(run, act, action, turn)) for run in runs]
        return BulkResult([task.result() for task in tasks], next_before)

    async def _act(
        self,
        run: Run[Any] | str,
        act: Callable[[Run[Any]], Awaitable[None]],
        action: str,
        turn: asyncio.Semaphore,
    ) -> RunOutcome:
        key = run if isinstance(run, str) else run.key
        async with turn:
            try:
                run = await self.get(run) if isinstance(run, str) else run
                await act(run)
            except RunNotFound as error:
                return RunOutcome(key, False, None, str(error))
            except TransitionRefused as error:
                state = None if isinstance(run, str) else (await run.refresh()).state
                return RunOutcome(key, False, state, str(error))
        return RunOutcome(key, True, run.state, _told(run, action))


_RETRIED = frozenset({RunState.DISCARDED, RunState.CANCELLED, RunState.SUSPENDED})


def _told(run: Run[Any], action: str) -> str:
    if action == "cancel" and not run.state.final:
        return f"Run {run.key!r} is asked to stop."
    return f"Run {run.key!r} is {run.state}."


def _filters(
    state: str | Collection[str] | None,
    agent: str | None,
    queue: str | None,
    tag: str | None,
    thread: str | None,
    key: str | None,
    text: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Filters:
    for name, at in (("since", since), ("until", until)):
        if at is not None and at.tzinfo is None:
            raise ConfigError(f"{name} has no time zone: write datetime.now(UTC) - …")
    states = _states_of(state)
    return Filters(states, agent, queue, tag, thread, key or None, text or None, since, until)


def _states_of(state: str | Collection[str] | None) -> tuple[str, ...] | None:
    if state is None:
        return None
    states = (state,) if isinstance(state, str) else tuple(state)
    for name in states:
        if name not in set(RunState):
            raise ConfigError(f"{name!r} is no state; use one of: {', '.join(RunState)}.")
    return states or None


def _check_limit(limit: int) -> None:
    if limit < 1:
        raise ConfigError(f"limit={limit}: at least 1.")


def _check_bulk(keys: Sequence[str] | None, filters: Filters, limit: int) -> None:
    if (keys is None) == (filters == Filters()):
        raise ConfigError("Say which runs: by keys=, or by filters such as state= or agent=.")
    if keys is not None and len(keys) > MOST_AT_ONCE:
        raise ConfigError(f"{len(keys)} keys: at most {MOST_AT_ONCE} at once.")
    if not 1 <= limit <= MOST_AT_ONCE:
        raise ConfigError(f"limit={limit}: from 1 to {MOST_AT_ONCE}.")
