"""What really happened in a run's processes, in files with fsync: no crash takes a line back.

Owns the format of the lines; what they mean together is `facts`' and the judge's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

RUN = "crashtest-00000000-00000"
"""Stands for the key of the run, which is another one in every ledger; as long as these are."""


class Notes:
    """The notes of one run: a file in its folder, to which each of its processes appends.

    Args:
        key: the run's key, which is written as `RUN`.
        role: which process writes.
    """

    def __init__(self, folder: Path, key: str, role: str) -> None:
        self.key = key
        self._path = folder / "notes.jsonl"
        self._role = role

    def write(self, what: str, **facts: Any) -> None:
        """Append a line; it is on disk when this returns."""
        line = json.dumps({"what": what, "role": self._role, **facts}).replace(self.key, RUN)
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, f"{line}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)

    def read(self) -> list[dict[str, Any]]:
        """All lines so far, of all processes."""
        return read_notes(self._path.parent)


def read_notes(folder: Path) -> list[dict[str, Any]]:
    """The notes in a run's folder; none if there are none."""
    path = folder / "notes.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
