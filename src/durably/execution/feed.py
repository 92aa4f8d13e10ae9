"""What the messages in the making say so far, on its way to whoever watches.

Owns when it is written, and when it is given up: it is best effort, and never in the way of what
the attempt itself writes. Knows no agent framework: pieces are JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from durably import boundaries
from durably.errors import LeaseLost, LedgerClosed, LedgerError, LedgerUnavailable
from durably.ledger import deltas
from durably.ledger.database import Database
from durably.records import Claim

log = logging.getLogger(__name__)

GAP_SECONDS = 0.05
"""The least time from one write of a run to the next."""

AWAY_SECONDS = 0.5
"""The same while the database cannot be written."""

BACKLOG_CHARS = 1_000_000
"""How much may wait to be written; beyond it nothing more is shown until the message is there."""

LEAVING_SECONDS = 1.0
"""How long an attempt that ends waits for a write that is under way."""

type Merge = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any] | None]
"""Two pieces that follow each other as one; None if they stay two."""


class Piece(NamedTuple):
    """A piece of the message at a position, as JSON, and about how long it is."""

    message: int
    event: dict[str, Any]
    chars: int


class Feed:
    """The deltas of one attempt, written one batch at a time by a task of their own.

    A batch that nobody answered is written again as it is: the ledger knows it by the deltas that
    were there before.

    Args:
        merge: how pieces that follow each other become one.
    """

    def __init__(self, ledger: Database, claim: Claim, merge: Merge) -> None:
        self._ledger = ledger
        self._claim = claim
        self._merge = merge
        self._pieces: list[Piece] = []
        self._batch: list[Piece] = []
        self._chars = 0
        self._last = 0
        self._message: int | None = None
        self._before = 0
        self._take_back_after: int | None = None
        self._given_up = False
        self._ended = False
        self._writing = False
        self._task: asyncio.Task[None] | None = None

    def add(self, message: int, event: dict[str, Any], chars: int) -> None:
        """Have a piece of the message at this position shown soon."""
        if self._ended or self._given_up:
            return
        last = self._pieces[-1] if self._pieces else None
        merged = self._merge(last.event, event) if last and last.message == message else None
        if last and merged:
            self._pieces[-1] = Piece(message, merged, last.chars + chars)
        else:
            self._pieces.append(Piece(message, event, chars))
        self._chars += chars
        if self._chars > BACKLOG_CHARS:
            self.give_up("too much waits to be written")
        self._wake()

    def give_up(self, why: str) -> None:
        """Show nothing more until the next message: a text with a gap would be another text."""
        log.debug("run #%d: a message is shown when it is there: %s", self._claim.run_id, why)
        self._forget()
        self._given_up = True

    def ask_again(self, message: int) -> None:
        """The model is asked for this message once more: take back what was shown of it."""
        self._given_up = False
        self._pieces = [piece for piece in self._pieces if piece.message < message]
        if self._message is not None and self._message >= message:
            # Written, or being written: this comes after that.
            self._batch = []
            self._take_back_after = self._before
            self._message = None
        self._chars = sum(piece.chars for piece in (*self._batch, *self._pieces))
        self._wake()

    def drop(self) -> None:
        """The messages are being checkpointed: what was not written of them need not be."""
        self._forget()
        self._given_up = False
        self._take_back_after = self._message = None

    def end(self) -> None:
        """Write nothing more."""
        self._ended = True
        self._forget()

    async def close(self) -> None:
        """`end`, and let a write that is under way come to its end."""
        self.end()
        if self._task is not None and self._writing:
            await asyncio.wait({self._task}, timeout=LEAVING_SECONDS)

    def _forget(self) -> None:
        self._pieces, self._batch, self._chars = [], [], 0

    def _wake(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while not self._ended and (
            self._take_back_after is not None or self._batch or self._pieces
        ):
            self._writing = True
            try:
                pause = await self._write()
            finally:
                self._writing = False
            if not self._ended:
                await asyncio.sleep(pause)

    async def _write(self) -> float:
        """Write what comes next; returns how long to wait until the next write."""
        try:
            if self._take_back_after is not None:
                await self._take_back(self._take_back_after)
            else:
                await self._write_batch()
        except LedgerUnavailable as error:
            log.debug("run #%d: deltas wait for the database: %s", self._claim.run_id, error)
            return AWAY_SECONDS
        except (LeaseLost, LedgerClosed) as error:
            log.debug("run #%d: no more deltas: %s", self._claim.run_id, error)
            self.end()
        except LedgerError as error:
            self.give_up(str(error))
        return GAP_SECONDS

    async def _take_back(self, after: int) -> None:
        await self._ledger.write(deltas.ask_again, self._claim, after)
        if self._take_back_after == after:
            self._take_back_after = None

    async def _write_batch(self) -> None:
        batch = self._batch = self._batch or self._next_batch()
        message = batch[0].message
        if message != self._message:
            self._message, self._before = message, self._last
        data = json.dumps({"message": message, "events": [piece.event for piece in batch]})
        boundaries.reached("delta:before")
        self._last = await self._ledger.write(deltas.write, self._claim, message, data, self._last)
        boundaries.reached("delta:after")
        if self._batch is batch:  # Not dropped meanwhile.
            self._batch = []
            self._chars -= sum(piece.chars for piece in batch)

    def _next_batch(self) -> list[Piece]:
        """What waits of the oldest message."""
        message = self._pieces[0].message
        batch = [piece for piece in self._pieces if piece.message == message]
        self._pieces = [piece for piece in self._pieces if piece.message != message]
        return batch
