"""A dashboard, workers and the application on their stage, each a process of its own.

Owns how they are started, killed and ended; what is looked at is the tests'.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

PATIENCE_SECONDS = 180.0
"""For everything that is waited for: generous, so that a slow machine fails nothing."""

OPERATOR = "operator-token-of-the-tests"
VIEWER = "viewer-token-of-the-tests"

TESTS = Path(__file__).parent.parent


class Stage:
    """A ledger, what serves it and what works on it, each a process.

    Attributes:
        url: of the dashboard, with a slash at the end.
        ledger_url: of the ledger.
        folder: where files are that the application's agents wait for.
    """

    def __init__(self, folder: Path, ledger_url: str) -> None:
        self.folder = folder
        self.ledger_url = ledger_url
        self.url = ""
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A ``durably`` process of the application."""
        log = (self.folder / f"process-{len(self._processes)}.log").open("w")
        process = subprocess.Popen(
            [sys.executable, "-m", "durably", *arguments, "--app", "apps.stage:make"],
            env={
                **os.environ,
                "PYTHONPATH": str(TESTS),
                "STAGE": str(self.folder),
                "DURABLY_URL": self.ledger_url,
                "DURABLY_WEB_TOKEN": OPERATOR,
                "DURABLY_WEB_VIEWER_TOKEN": VIEWER,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        log.close()
        self._processes.append(process)
        return process

    def serve(self, *arguments: str) -> str:
        """Start a dashboard; returns its address once it answers."""
        number = len(self._processes)
        server = self.start("web", "--port", "0", *arguments)
        said = self.wait_to_say(server, number, "Dashboard ")
        return said.split("Dashboard ", 1)[1].split()[0]

    def work(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a worker."""
        return self.start("worker", *arguments)

    def wait_to_say(self, process: subprocess.Popen[str], number: int, text: str) -> str:
        log = self.folder / f"process-{number}.log"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in (said := log.read_text()) or not said.endswith("\n"):
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        return said

    def let(self, name: str) -> None:
        """Make the file that an agent waits for."""
        (self.folder / name).touch()

    @property
    def notes(self) -> list[str]:
        """What tools really did."""
        notes = self.folder / "notes.txt"
        return notes.read_text().splitlines() if notes.exists() else []

    def kill(self, process: subprocess.Popen[str]) -> None:
        """End a process as a crash does."""
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@contextmanager
def staged(folder: Path, ledger_url: str) -> Iterator[Stage]:
    """A stage, of which nothing is left afterwards."""
    stage = Stage(folder, ledger_url)
    try:
        yield stage
    finally:
        stage.close()


async def until(what: str, look: Callable[[], Awaitable[object]]) -> None:
    """Look until something is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not await look():
        assert time.monotonic() < deadline, f"not in {PATIENCE_SECONDS:g} s: {what}"
        await anyio.sleep(0.05)
