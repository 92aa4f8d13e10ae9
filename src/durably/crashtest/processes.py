"""The warm process, as whoever needs children of it sees it: one job at a time, and no leftovers.

Owns starting and ending it; what happens in it is `warm`'s.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from durably.crashtest.job import Job
from durably.errors import DurablyError

STOP_SECONDS = 10.0
LOG_CHARS = 1500


class Broken(DurablyError):
    """The processes of a crash test cannot go on; says why."""


class Processes:
    """Runs jobs in processes of their own; none is left when the block ends.

    Args:
        module: the program that calls `warm.serve`, for ``python -m``.
        app: the application, as the program is told it.
        folder: where what it says is kept.

    Attributes:
        forks: False if each job needs a new interpreter, which takes seconds.
    """

    forks = True

    def __init__(self, module: str, app: str, folder: Path) -> None:
        self._command = [sys.executable, "-m", module, app]
        self._log = folder / "warm.log"
        self._child: int | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            self.forks = bool(self._hear()["forks"])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # It ends its child, and itself.
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._end_child()
        self._process.stdout.close()

    def run(self, job: Job, seconds: float) -> int | str:
        """Have a job done; returns its exit code, minus its signal, or `warm.TIMED_OUT`."""
        assert self._process.stdin is not None
        asked = {"job": str(job.write()), "log": str(job.log), "seconds": seconds}
        try:
            self._process.stdin.write(f"{json.dumps(asked)}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._broken() from None
        self._child = int(self._hear()["started"])
        try:
            ended = self._hear()["ended"]
        except BaseException:
            self._end_child()  # Before whoever is interrupted clears up under it.
            raise
        self._child = None
        return ended

    def _end_child(self) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child, signal.SIGKILL)

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._broken()
        return json.loads(line)

    def _broken(self) -> Broken:
        said = self._log.read_text("utf-8", errors="replace").strip()[-LOG_CHARS:]
        return Broken(f"The process that runs the application for the crash test ended: {said}")


def last_words(job: Job) -> str:
    """What a process said last."""
    if not job.log.exists():
        return ""
    lines = job.log.read_text("utf-8", errors="replace").strip().splitlines()
    return "\n".join(lines[-12:])[-LOG_CHARS:]
