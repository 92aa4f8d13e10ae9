"""What one process of a crash test is to do, as it is told in a file; and what it leaves.

Pure data; what a process does is in `life`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from durably.crashtest.strikes import Strike

type Role = Literal["record", "rehearse", "crash", "finish"]


@dataclass(frozen=True)
class Job:
    """The life of one process.

    Attributes:
        role: ``record`` asks the real model; ``rehearse`` plays its responses, and nothing happens
            to it; ``crash`` is killed at the strike; ``finish`` takes over from that one.
        folder: where it leaves its notes and its result.
        tape: the file with the responses.
        url: its ledger.
        key: the run's.
        pattern: the folder of the undisturbed run, for what its calls returned; None: there is
            none yet.
    """

    role: Role
    folder: str
    tape: str
    url: str
    key: str
    agent: str
    prompt: str
    args: dict[str, Any] | None
    approve: bool
    answers: tuple[Any, ...]
    signals: dict[str, Any]
    strike: Strike | None = None
    pattern: str | None = None

    def write(self) -> Path:
        """Write it into its folder; returns the file."""
        path = Path(self.folder) / f"{self.role}.job.json"
        path.write_text(json.dumps(asdict(self)), "utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read what `write` wrote."""
        fields: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if fields["strike"] is not None:
            fields["strike"] = Strike(*fields["strike"])
        fields["answers"] = tuple(fields["answers"])
        return cls(**fields)

    @property
    def result(self) -> Path:
        """Where it leaves what it found; there is none if it was killed."""
        return Path(self.folder) / f"{self.role}.result.json"

    @property
    def log(self) -> Path:
        """Where what it says goes."""
        return Path(self.folder) / f"{self.role}.log"
