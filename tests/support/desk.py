"""A place to run the command line in: inside the test's process, or as one of its own."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from durably import Durably
from durably.cli.main import run
from support.launcher import launch

APPS = Path(__file__).parents[1] / "apps"
DEADLINE_SECONDS = 100.0


@dataclass
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


class Process:
    """A ``durably`` process; what it says goes to a file, so that it can be read while it lives."""

    def __init__(self, folder: Path, number: int, arguments: tuple[str, ...]) -> None:
        self._errors = folder / f"stderr-{number}.txt"
        self._errors.touch()
        self.process = launch(arguments, self._errors)

    @property
    def err(self) -> str:
        return self._errors.read_text()

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def wait(self) -> int:
        return self.process.wait(DEADLINE_SECONDS)

    def wait_to_say(self, text: str) -> None:
        wait_until(lambda: text in self.err or self.process.poll() is not None)
        assert text in self.err, self.err

    def kill(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.wait()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Desk:
    """The ledger and the folder of one test's ``desk`` application."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], url: str | None = None
    ) -> None:
        self.folder = folder
        self.url = url or f"sqlite:///{folder}/ledger.db"
        self._capsys = capsys
        self._processes: list[Process] = []

    def run(self, *arguments: str) -> Ran:
        """Run a command inside this process."""
        self._capsys.readouterr()
        code = run([*arguments])
        return Ran(code, *self._capsys.readouterr())

    def start(self, *arguments: str) -> Process:
        """Run a command in a process of its own."""
        process = Process(self.folder, len(self._processes), arguments)
        self._processes.append(process)
        return process

    def work[T](self, work: Callable[[Durably], Awaitable[T]]) -> T:
        """Do something with the application itself."""
        from apps.desk import make

        async def opened() -> T:
            async with make() as app:
                return await work(app)

        return asyncio.run(opened())

    def enqueue(self, agent: str, key: str, prompt: str = "hello", **options: Any) -> None:
        self.work(lambda app: app.enqueue(agent, prompt, key=key, **options))

    def drain(self) -> None:
        self.work(lambda app: app.drain())

    def notes(self) -> list[str]:
        notes = self.folder / "notes.txt"
        return notes.read_text().splitlines() if notes.exists() else []

    def close(self) -> None:
        for process in self._processes:
            process.kill()
