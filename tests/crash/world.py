"""What a crash leaves of the world outside: side effects and paid requests, in a file with fsync.

Owns the file; a line is written before the call that writes it returns, or not at all.
"""

import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from crash.databases import WorldDatabase, database_at
from durably import boundaries, current_call


class World:
    """The world of one run, in a folder of its own: what its tools did, and where its ledger is.

    Attributes:
        url: the ledger's: a file in the folder, unless the folder names a database elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        named = folder / "url"
        self.url = named.read_text() if named.exists() else f"sqlite:///{folder / 'ledger.db'}"
        self._file = folder / "world.jsonl"

    @property
    def database(self) -> WorldDatabase:
        """The ledger, to be looked at by hand."""
        return database_at(self.url)

    def act(self) -> str:
        """The side effect of the tool call that is running; returns what the tool answers."""
        call = current_call()
        boundaries.reached("effect:before")
        self.record("effect", tool=call.tool_name, key=call.idempotency_key, attempt=call.attempt)
        boundaries.reached("effect:after")
        return receipt(call.tool_name, call.idempotency_key)

    def pay(self, response: int) -> None:
        """A model request was answered, and will be on the bill."""
        self.record("paid", response=response, pid=os.getpid())

    def record(self, what: str, **facts: object) -> None:
        line = json.dumps({"what": what, **facts}) + "\n"
        file = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode())
            os.fsync(file)
        finally:
            os.close(file)

    def open_gate(self) -> None:
        """Let go on what waits in another process."""
        (self.folder / "open").touch()

    def gate_is_open(self) -> bool:
        return (self.folder / "open").exists()

    def records(self, what: str) -> list[dict[str, Any]]:
        if not self._file.exists():
            return []
        lines = self._file.read_text("utf-8").splitlines()
        return [fact for fact in map(json.loads, lines) if fact["what"] == what]

    def effects(self) -> Counter[str]:
        """How often each call really had its effect, by idempotency key."""
        return Counter(fact["key"] for fact in self.records("effect"))

    def paid(self) -> int:
        """How many model requests were paid."""
        return len(self.records("paid"))


class Trace:
    """Notes every boundary that is reached, with its how-manieth time."""

    def __init__(self) -> None:
        self.reached: list[tuple[str, int]] = []
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        self.note(name)

    def note(self, name: str) -> int:
        with self._lock:
            self._counts[name] += 1
            self.reached.append((name, self._counts[name]))
            return self._counts[name]


def receipt(tool: str, key: str) -> str:
    """What a tool answers: the same whenever the call is made, as a good service would."""
    return f"{tool}: receipt {key}"
