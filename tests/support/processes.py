"""Processes that use a ledger at the same time as a test does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("ledger_process.py")


class LedgerProcess:
    """One process of `ledger_process`; it begins when it is told to."""

    def __init__(self, command: str, url: str | Path, *args: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), command, str(url), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> LedgerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def hear(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process ended without a word"
        return line.strip()

    def go(self) -> None:
        """Let it begin, or go on."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> Any:
        """What it printed in the end."""
        return json.loads(self.hear())


def all_at_once(url: str | Path, calls: Sequence[tuple[str, ...]]) -> list[Any]:
    """Run several processes that begin at the same moment; their results, in order."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(LedgerProcess(command, url, *args)) for command, *args in calls
        ]
        for process in processes:
            assert process.hear() == "ready"
        for process in processes:
            process.go()
        return [process.result() for process in processes]
