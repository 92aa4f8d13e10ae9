"""Jobs on a SQLite connection, each batch of them one transaction.

Owns how a batch begins, fails and is committed; who uses the connection when is `writer`'s.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from durably import boundaries
from durably.ledger.database import Clock
from durably.ledger.lanes import Answer, Job
from durably.ledger.sqlite.connection import (
    BEGIN_SECONDS,
    begin_immediate,
    data_version,
    drive,
    translate,
)
from durably.ledger.sqlite.turns import Turns

log = logging.getLogger(__name__)


class Batches:
    """A connection that writes; its methods are called by one thread at a time.

    Args:
        connection: its busy timeout becomes 0, so that nobody waits for a lock unless they want to.
        check_file: raises if the path does not name the ledger's file any more.
        turns: of this process's tools, none of which is waited for longer than for one.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        clock: Clock,
        path: Path,
        check_file: Callable[[], None],
        turns: Turns,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._path = path
        self._check_file = check_file
        self._turns = turns
        # What `data_version` said after the last commit, and as the transaction began.
        self._version = self._version_at_begin = 0
        connection.execute("PRAGMA busy_timeout=0")

    def run_at_once(self, jobs: list[Job]) -> list[Answer] | None:
        """Run every job in a new transaction and leave that open, if nobody has to be waited for.

        Returns:
            What to tell after the commit; None if the file is locked or a job failed.
        """
        try:
            self._check_file()
            self._connection.execute("BEGIN IMMEDIATE")
            self._version_at_begin = data_version(self._connection)
            return self._all(jobs)
        except Exception as error:
            # `commit` begins anew: it waits for the lock, and finds out whose fault it is.
            log.debug("a batch of %d is begun anew: %s", len(jobs), error)
            return None

    def commit(
        self, jobs: list[Job], answers: list[Answer] | None
    ) -> tuple[list[Answer], bool | None]:
        """Commit what was run at once; without answers run it first, whoever has to be waited for.

        Returns:
            What to tell, and whether nothing but progress is there since the last commit; None:
            nothing was committed.
        """
        if answers is None:
            with self._turns.ahead(BEGIN_SECONDS) as seconds:
                return self._commit(jobs, None, seconds)
        return self._commit(jobs, answers, BEGIN_SECONDS)

    def _commit(
        self, jobs: list[Job], answers: list[Answer] | None, seconds: float
    ) -> tuple[list[Answer], bool | None]:
        try:
            if answers is None:
                self._check_file()
                self._begin(seconds)
                answers = self._all_or_each(jobs)
            boundaries.reached("commit:before")
            self._connection.execute("COMMIT")
            boundaries.reached("commit:after")
        except Exception as error:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            failure = translate(error, self._path)
            return [Answer(job, error=failure) for job in jobs], None
        alone = self._version_at_begin == self._version
        self._version = self._version_at_begin
        return answers, alone and all(job.progress for job in jobs)

    def find_others(self) -> bool:
        """Whether anybody else has committed since this was found out last.

        Other connections of this process are others.
        """
        version = data_version(self._connection)
        seen, self._version = self._version, version
        return version != seen

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _begin(self, seconds: float = BEGIN_SECONDS) -> None:
        """Begin a transaction, patiently, and undo one that is open."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        begin_immediate(self._connection, seconds)
        self._version_at_begin = data_version(self._connection)

    def _all_or_each(self, jobs: list[Job]) -> list[Answer]:
        """Run every job in the open transaction; one that fails undoes only itself.

        Hardly any job fails, and a savepoint for each would cost all of them something.
        """
        try:
            return self._all(jobs)
        except Exception as error:
            # Of a full disk, or a lock that is lost, the next try would tell the same.
            if len(jobs) == 1 or not self._connection.in_transaction:
                raise
            log.debug("of %d jobs in a transaction one failed: %s", len(jobs), error)
            self._begin()
            return self._each(jobs)

    def _all(self, jobs: list[Job]) -> list[Answer]:
        return [Answer(job, self._result(job)) for job in jobs]

    def _each(self, jobs: list[Job]) -> list[Answer]:
        """Run every job within a savepoint of its own."""
        execute = self._connection.execute
        answers: list[Answer] = []
        for job in jobs:
            execute("SAVEPOINT job")
            try:
                answer = Answer(job, self._result(job))
            except Exception as error:
                # A full disk rolls the whole transaction back: then nobody's write exists.
                if not self._connection.in_transaction:
                    raise
                execute("ROLLBACK TO job")
                answer = Answer(job, error=translate(error, self._path))
            execute("RELEASE job")
            answers.append(answer)
        return answers

    def _result(self, job: Job) -> Any:
        return drive(self._connection, job.operation(), self._clock)
