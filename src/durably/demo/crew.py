"""The worker processes: starting, killing, replacing and, whatever happens, stopping them.

Owns processes by their ids; why one is killed is the story's business.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from durably.demo.app import FOLDER, MODEL, PARENT, QUEUE, URL
from durably.demo.site import Site

LEASE_SECONDS = 2
"""Short, so that the rescue of a killed worker's runs can be watched."""

RUNS_EACH = 2
GRACE_SECONDS = 5
STOP_SECONDS = 15.0


class WorkerDied(Exception):
    """A worker ended that nobody had killed; the message says where its log is."""


@dataclass
class Member:
    """A worker process."""

    name: str
    process: subprocess.Popen[bytes]
    killed: bool = False


class Crew:
    """Every worker process of the demo; none of them outlives the ``with`` block."""

    def __init__(self, site: Site, model: str | None) -> None:
        self._site = site
        self._environment = _environment(site, model)
        self._members: list[Member] = []
        self._files = ExitStack()

    def __enter__(self) -> Crew:
        self._site.logs.mkdir(exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for member in self._members:
            if member.process.poll() is None:
                member.process.kill()
            member.process.wait()
        self._files.close()

    def start(self) -> Member:
        """Start one more worker."""
        name = f"worker-{len(self._members) + 1}"
        log = self._files.enter_context((self._site.logs / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "durably", "worker", "--name", name),
                *("--app", "durably.demo.app:app", "--queue", f"{QUEUE}={RUNS_EACH}"),
                *("--lease", str(LEASE_SECONDS), "--grace", str(GRACE_SECONDS)),
            ],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C is for the demo, which then stops its workers itself.
            start_new_session=True,
        )
        member = Member(name, process)
        self._members.append(member)
        return member

    def find(self, pid: int) -> Member | None:
        """The worker with this process id, unless it was killed already."""
        return next((m for m in self._members if m.process.pid == pid and not m.killed), None)

    def living(self) -> set[int]:
        """The process ids of those that were not killed."""
        return {m.process.pid for m in self._members if not m.killed}

    def kill(self, member: Member) -> None:
        """SIGKILL: it gets no chance to say or save anything."""
        member.killed = True
        member.process.send_signal(signal.SIGKILL)
        member.process.wait()

    def check(self) -> None:
        """Notice a worker that ended by itself.

        Raises:
            WorkerDied: one did.
        """
        for member in self._members:
            if not member.killed and member.process.poll() is not None:
                log = self._site.logs / f"{member.name}.log"
                last = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["no output"]
                raise WorkerDied(
                    f"{member.name} ended by itself with exit code {member.process.returncode}: "
                    f"{last[0]} (see {log})"
                )

    async def stop(self) -> list[int]:
        """SIGTERM, as a deploy would; returns the exit codes of those that were still there."""
        alive = [m.process for m in self._members if not m.killed]
        for process in alive:
            process.terminate()
        async with asyncio.timeout(STOP_SECONDS):
            return await asyncio.gather(*(asyncio.to_thread(p.wait, STOP_SECONDS) for p in alive))


def own_environment() -> dict[str, str]:
    """For processes of the demo: settings of another application must not leak into them."""
    return {k: v for k, v in os.environ.items() if not k.startswith("DURABLY_")}


def _environment(site: Site, model: str | None) -> Mapping[str, str]:
    environment = own_environment() | {FOLDER: str(site.folder), PARENT: str(os.getpid())}
    if site.postgres_url is not None:
        environment[URL] = site.postgres_url
    if model is not None:
        environment[MODEL] = model
    return environment
