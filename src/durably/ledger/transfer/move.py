"""Moving a ledger: the order of its steps, so that it can be killed after any and run again.

Owns that order, and what each of the two ledgers knows at each moment; reading and writing are
`source`'s and `target`'s.

    source           target           what is true
    --------------   --------------   ------------------------------------------------------------
    -                -                the source is in use
    marked           -                nobody writes to the source any more, whoever has it open
    marked           begun            nobody but the transfer writes to the target
    marked           some runs        each with all that belongs to it
    marked           all runs         compared with the source, table by table
    opening          all runs         from here on only the target knows whether it is in use
    opening          finished         the target is in use
    moved            finished         and the source knows

The source is marked while the target's own transaction is open, so that a transfer that is refused
there leaves nothing behind.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from durably import boundaries
from durably.errors import ConfigError, LedgerError, LedgerUnavailable
from durably.ledger.connect import database_for
from durably.ledger.sqlite.moved import Mark, Stage
from durably.ledger.transfer.compare import Checked, Compared, compare
from durably.ledger.transfer.news import Begun, Copied, Moved, News, Plan, Waiting
from durably.ledger.transfer.source import Source
from durably.ledger.transfer.tables import COMPARED

if TYPE_CHECKING:
    from durably.ledger.transfer.target import Target

BATCH_SECONDS = 1.0
"""How long a batch should take: what is lost if the transfer is killed, how often there is news."""

FIRST_BATCH = 20
MOST_IN_BATCH = 5_000

PATIENCE_SECONDS = 60.0
"""How long to try to reach a target that was lost, before the transfer ends, to be run again."""

RETRY_SECONDS = 1.0


def plan(source_url: str, target_url: str) -> Plan:
    """Look at both ends; changes nothing.

    Raises:
        ConfigError: between these two, nothing can be moved.
        LedgerError: one of them cannot be read.
    """
    with _ends(source_url, target_url) as (source, target):
        mark = source.find_mark()
        same = mark is not None and _same(mark, target)
        progress = target.find(mark.transfer_id) if mark is not None and same else None
        if mark is None:
            obstacles = source.obstacles() + target.obstacles()
        elif not same:
            obstacles = [mark.sentence(source.path)]
        else:
            obstacles = [] if progress else target.obstacles()
        return Plan(
            source=source.url,
            target=target.where.shown,
            rows=source.counts(),
            states=source.states(),
            makes_tables=target.version == 0,
            began_at=mark.moved_at if mark else None,
            finished=progress is not None and progress.finished,
            copied_runs=target.counts()["runs"] if progress else 0,
            obstacles=obstacles,
        )


def move(source_url: str, target_url: str) -> Generator[News]:
    """Move every run from one ledger to the other, or go on with that.

    Whatever interrupts it, it goes on where it was when it is run again.

    Raises:
        ConfigError: between these two, nothing can be moved.
        LedgerUnavailable: one of them cannot be used now; run it again.
        LedgerError: something is in the way; or what was copied is not the same.
    """
    with _ends(source_url, target_url) as (source, target):
        found = source.find_mark()
        mark = _begin(source, target, found)
        already = target.progress(mark.transfer_id).finished
        if not already:
            yield _begun(source, target, found)
            yield from _copy(source, target, mark)
            yield from _verify(source, target, mark)
            _open(source, target, mark)
        source.set_stage(mark.transfer_id, Stage.MOVED)
        yield Moved(source.url, target.where.shown, already)


def take_back(source_url: str, target_url: str) -> int:
    """Give up a transfer that is not finished: empty the target, and free the source.

    Returns:
        How many runs were deleted at the target.

    Raises:
        LedgerError: nothing was begun; or it is finished; or another target was meant.
    """
    with _ends(source_url, target_url) as (source, target):
        mark = source.find_mark()
        if mark is None:
            raise LedgerError(f"{source.path} is not being moved; there is nothing to take back.")
        # A database that was made anew has another identity. Before anything was verified, no copy
        # can be in use, wherever it is.
        anew = mark.stage is Stage.COPYING and mark.url == target.where.shown
        if not anew and not _same(mark, target):
            raise LedgerError(mark.sentence(source.path))
        emptied = target.empty(mark.transfer_id) if target.version else None
        if emptied is not None and emptied.finished:
            source.set_stage(mark.transfer_id, Stage.MOVED)
            raise LedgerError(
                f"{source.path} was moved to {target.where.shown}, where its runs go on since "
                "then; that cannot be taken back."
            )
        boundaries.reached("transfer:emptied")
        source.remove_mark()
        return 0 if emptied is None else emptied.runs


# --- the steps


def _begin(source: Source, target: Target, mark: Mark | None) -> Mark:
    """Mark both ends, or find them marked.

    Raises:
        LedgerError: something is in the way.
    """
    if mark is None:
        for obstacle in source.obstacles() + target.obstacles():
            raise LedgerError(obstacle)
        if target.version == 0:
            target.migrate()
        mark = Mark(uuid.uuid4().hex, target.where.shown, target.identity(), datetime.now(UTC))
        target.begin(mark, source, partial(source.set_mark, mark))
    elif not _same(mark, target):
        raise LedgerError(mark.sentence(source.path))
    elif target.find(mark.transfer_id) is None:
        # It was killed between the two marks, or while it was taken back.
        target.begin(mark, source)
    return mark


def _begun(source: Source, target: Target, found: Mark | None) -> Begun:
    counts, there = source.counts(), target.counts() if found else {}
    return Begun(
        source=source.url,
        target=target.where.shown,
        made_tables=target.made_tables,
        goes_on=found is not None,
        runs=counts["runs"],
        rows=sum(counts.values()),
        copied_runs=there.get("runs", 0),
        rows_there=sum(there.values()),
    )


def _copy(source: Source, target: Target, mark: Mark) -> Generator[Copied | Waiting]:
    """Copy what is not there yet, in batches; a connection that was lost is made again."""
    position: int | None = None
    size, lost_at = FIRST_BATCH, None
    while True:
        began = time.monotonic()
        try:
            if position is None:
                position = target.progress(mark.transfer_id).copied_to
            upto = source.end_of_range(position, size)
            if upto is None:
                return target.analyze()
            copied = target.copy(mark.transfer_id, source, position, upto)
        except LedgerUnavailable as error:
            # What was being committed may be there, or not.
            position, lost_at = None, lost_at or began
            if began - lost_at > PATIENCE_SECONDS:
                raise
            yield Waiting(str(error))
            time.sleep(RETRY_SECONDS)
            continue
        position, lost_at = copied.position, None
        yield Copied(copied.runs, copied.rows)
        size = _next_size(size, time.monotonic() - began)


def _next_size(runs: int, seconds: float) -> int:
    """How many runs to copy next, after so many took so long."""
    factor = BATCH_SECONDS / max(seconds, 0.001)
    return round(min(MOST_IN_BATCH, max(1.0, runs * min(2.0, max(0.1, factor)))))


def _verify(source: Source, target: Target, mark: Mark) -> Generator[Checked | Compared]:
    """Compare both ends, every table.

    Raises:
        LedgerError: they are not the same.
    """
    different: list[str] = []
    for table in COMPARED:
        compared = yield from compare(table, source.rows(table), target.rows(table))
        yield compared
        if not compared.same:
            different.append(compared.difference)
    # If another process of this transfer was quicker, the runs go on already.
    if different and not target.progress(mark.transfer_id).finished:
        raise LedgerError(
            f"What is at {target.where.shown} is not the same: {'; '.join(different)}. It stays "
            "closed; give this transfer up with --undo, and begin anew."
        )
    boundaries.reached("transfer:verified")


def _open(source: Source, target: Target, mark: Mark) -> None:
    """Open the target for work; the source says before that it may be open."""
    source.set_stage(mark.transfer_id, Stage.OPENING)
    boundaries.reached("transfer:opening")
    target.finish(mark.transfer_id, source.highest())
    boundaries.reached("transfer:finished")


# --- the ends


@contextmanager
def _ends(source_url: str, target_url: str) -> Generator[tuple[Source, Target]]:
    source, target = database_for(source_url), database_for(target_url)
    if source.dialect != "sqlite":
        raise ConfigError(
            f"{source.url} is no SQLite ledger, which is what can be moved; to move one between "
            "PostgreSQL servers, use pg_dump."
        )
    if target.dialect != "postgres":
        raise ConfigError(
            f"{target.url} is no PostgreSQL ledger, which is where one can be moved to; a SQLite "
            "file is moved as a file, while nothing uses it."
        )
    # Only now: without the driver there is no such URL.
    from durably.ledger.postgres.url import PostgresUrl
    from durably.ledger.sqlite.database import SqliteDatabase
    from durably.ledger.transfer.target import Target

    assert isinstance(source, SqliteDatabase)
    with (
        closing(Source(source.path)) as opened,
        closing(Target(PostgresUrl.parse(target_url))) as reached,
    ):
        yield opened, reached


def _same(mark: Mark, target: Target) -> bool:
    """Whether this is the ledger that the mark names, however its URL is written."""
    return target.version > 0 and target.identity() == mark.ledger_id
