"""A connection in an event loop, over which several statements are sent at once: one transaction.

Owns what is sent and what comes back (PostgreSQL docs, libpq, "Pipeline Mode"); whose statements
they are, and what their rows mean, is `loop_lane`'s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import errors
from psycopg.abc import Buffer
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGresult

from durably.ledger.operations import Row, Statement
from durably.ledger.postgres.statements import numbered, parameters

type Kind = tuple[str, tuple[int, ...]]
"""A statement's name and its parameters' types: what is prepared once."""


class Sendable(NamedTuple):
    """A statement as it goes over the wire."""

    kind: Kind
    params: Sequence[Buffer | None]
    formats: Sequence[Format]

    @property
    def size(self) -> int:
        """How many bytes its parameters have."""
        return sum(len(param) for param in self.params if param is not None)


class Pipeline:
    """Sends statements, and hears what became of them; nothing here ever waits.

    The server makes one transaction of what comes before a Sync message, and commits it by itself:
    whatever becomes of this process meanwhile, it holds no lock for longer than that takes.

    Args:
        connection: nobody else's, in no transaction; closed by `close`, or when it is lost.
        answered: called with each statement's result once all are committed; or with an error, and
            nothing was.
        lost: called with an error when the connection cannot be used any more. What was sent and
            not answered may have been committed.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        schema: str,
        answered: Callable[[list[PGresult] | psycopg.Error], None],
        lost: Callable[[psycopg.Error], None],
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._schema = schema
        self._texts = numbered(schema)
        self._answered = answered
        self._lost = lost
        self._adapting = Transformer(connection)
        self._prepared: dict[Kind, bytes] = {}
        self._names = 0
        # What is to be answered, in order: what was prepared, None for what was executed.
        self._coming: deque[tuple[Kind, bytes] | None] = deque()
        self._results: list[PGresult] = []
        self._error: psycopg.Error | None = None
        self._writing = False
        self._closed = False
        self._pgconn.enter_pipeline_mode()
        self._loop = asyncio.get_running_loop()
        self._descriptor = self._pgconn.socket
        self._loop.add_reader(self._descriptor, self._read)

    def check(self) -> None:
        """Find out whether the server has ended the session, as far as has arrived by now."""
        try:
            self._pgconn.consume_input()  # What it has said,
            self._pgconn.consume_input()  # and that nothing comes after it.
        except psycopg.Error as error:
            self._lose(error)

    def dump(self, statement: Statement) -> Sendable:
        """The statement as it is sent.

        Raises:
            psycopg.Error: there is a parameter that PostgreSQL cannot hold.
        """
        given = parameters(statement, self._schema, alone=True)
        values = [given[name] for name in self._texts[statement.name].names]
        dumped = self._adapting.dump_sequence(values, [PyFormat.AUTO] * len(values))
        formats = self._adapting.formats
        return Sendable((statement.name, self._adapting.types or ()), dumped, formats or ())

    def send(self, asked: Sequence[Sendable]) -> None:
        """Have the statements done, all or none; not before what was sent last is answered."""
        try:
            names: dict[Kind, bytes] = {}
            for each in asked:
                name = self._prepared.get(each.kind) or names.get(each.kind)
                if name is None:
                    name = names[each.kind] = self._prepare(each.kind)
                self._pgconn.send_query_prepared(name, each.params, each.formats)
                self._coming.append(None)
            self._pgconn.pipeline_sync()
            self._flush()
        except psycopg.Error as error:
            self._lose(error)

    def rows(self, result: PGresult) -> Sequence[Row]:
        """What a statement returned, if it returns anything."""
        if result.status != ExecStatus.TUPLES_OK:
            return ()
        self._adapting.set_pgresult(result)
        names = [(result.fname(i) or b"").decode() for i in range(result.nfields)]
        return self._adapting.load_rows(
            0, result.ntuples, lambda values: dict(zip(names, values, strict=True))
        )

    def close(self) -> None:
        """Let go of the connection; of what is not answered nothing will be heard."""
        if self._closed:
            return
        self._closed = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
        self._connection.close()

    def _prepare(self, kind: Kind) -> bytes:
        self._names += 1
        name = f"durably_{self._names}".encode()
        self._pgconn.send_prepare(name, self._texts[kind[0]].text, kind[1])
        self._coming.append((kind, name))
        return name

    def _flush(self) -> None:
        """Send what is left to be sent, as far as the socket takes it."""
        writing = self._pgconn.flush() != 0
        if writing and not self._writing:
            self._loop.add_writer(self._descriptor, self._write)
        elif self._writing and not writing:
            self._loop.remove_writer(self._descriptor)
        self._writing = writing

    def _write(self) -> None:
        try:
            self._flush()
        except psycopg.Error as error:
            self._lose(error)

    def _read(self) -> None:
        synced, nothing = False, 0
        try:
            self._pgconn.consume_input()
            if self._writing:
                self._flush()
            # Between the results of two statements there is nothing once; twice: none was asked.
            while not synced and nothing < 2 and not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    nothing += 1
                else:
                    nothing, synced = 0, self._take(result)
        except psycopg.Error as error:
            self._lose(error)
            return
        if self._pgconn.status != ConnStatus.OK:
            self._lose(self._error or errors.OperationalError("the connection was lost"))
        elif synced:
            self._answer()

    def _take(self, result: PGresult) -> bool:
        """Note a result; True if it is the end of all of them."""
        if result.status == ExecStatus.PIPELINE_SYNC:
            return True
        prepared = self._coming.popleft() if self._coming else None
        if result.status == ExecStatus.FATAL_ERROR:
            self._error = errors.error_from_result(result)
        elif result.status == ExecStatus.PIPELINE_ABORTED:
            pass  # For the error that came before.
        elif prepared is not None:
            self._prepared[prepared[0]] = prepared[1]
        else:
            self._results.append(result)
        return False

    def _answer(self) -> None:
        answer = self._results if self._error is None else self._error
        self._results, self._error = [], None
        self._coming.clear()
        self._answered(answer)

    def _lose(self, error: psycopg.Error) -> None:
        if not self._closed:
            self.close()
            self._lost(self._error or error)
