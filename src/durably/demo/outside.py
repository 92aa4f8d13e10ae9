"""The world outside the database: payment provider, mail server and the model's bill.

Owns append-only files that survive any crash; none of them knows of runs, attempts or the ledger.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

type Entry = dict[str, Any]


def now() -> str:
    """The time, as it is written into books."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Book:
    """A file with one JSON object a line; what was appended is on disk before `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Entry]:
        """Everything written so far."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]

    def append(self, make: Callable[[list[Entry]], Entry | None]) -> Entry | None:
        """Append what ``make`` makes of the entries so far; None appends nothing.

        One writer at a time, so that ids are unique and `make` can look for what is there.
        """
        with self._locked() as file:
            entry = make(self.entries())
            if entry is not None:
                entry.setdefault("at", now())
                os.write(file, (json.dumps(entry) + "\n").encode())
                os.fsync(file)
            return entry

    @contextmanager
    def _locked(self) -> Generator[int]:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)


class PaymentProvider:
    """Moves money whenever it is asked to, also twice; it can be asked what it did.

    Real ones offer to recognise a repeat. This one does not, so that a repeat would show.
    """

    def __init__(self, path: Path) -> None:
        self._book = Book(path)

    def move(self, kind: str, *, order: int, cents: int, ticket: str, reference: str) -> Entry:
        """Charge the customer's card, or pay money back."""

        def make(entries: list[Entry]) -> Entry:
            prefix = "ch" if kind == "charge" else "re"
            return {
                "id": f"{prefix}_{len(entries) + 1:04d}",
                "kind": kind,
                "order": order,
                "cents": cents,
                "ticket": ticket,
                "reference": reference,
            }

        entry = self._book.append(make)
        assert entry is not None, "it always moves the money"
        return entry

    def find(self, reference: str) -> Entry | None:
        """The payment that was made under the shop's own reference."""
        return next((e for e in self._book.entries() if e["reference"] == reference), None)

    def get(self, payment_id: str) -> Entry | None:
        """The payment with the provider's id."""
        return next((e for e in self._book.entries() if e["id"] == payment_id), None)


class MailServer:
    """Delivers mail to a file. A message id that it has seen is accepted and not sent again."""

    def __init__(self, path: Path) -> None:
        self._book = Book(path)

    def send(self, *, message_id: str, to: str, subject: str, body: str, ticket: str) -> bool:
        """Send a mail; False if it had been sent before."""

        def make(entries: list[Entry]) -> Entry | None:
            if any(entry["message_id"] == message_id for entry in entries):
                return None
            return {
                "message_id": message_id,
                "to": to,
                "subject": subject,
                "body": body,
                "ticket": ticket,
            }

        return self._book.append(make) is not None


class ModelBill:
    """Counts model requests where they are paid, which no crash of a worker can undo."""

    def __init__(self, path: Path) -> None:
        self._book = Book(path)

    def request(self, *, run: str, step: int, attempt: int) -> None:
        """A request is about to be sent."""
        entry = {"run": run, "step": step, "attempt": attempt, "pid": os.getpid()}
        self._book.append(lambda _: entry)
