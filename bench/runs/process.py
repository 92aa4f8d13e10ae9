"""Starts a measurement as a process, gives it a fresh place, and ends it when it takes too long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runs.contestant import Contestant, Place
from runs.server import Server
from runs.workload import Workload

BENCH = Path(__file__).parent.parent

CALLGRIND = ("valgrind", "--tool=callgrind", "--instr-atstart=no")


class Failed(Exception):
    """A measurement gave no figures; says why in a line."""


def measured(
    contestant: Contestant,
    workload: Workload,
    server: Server | None,
    within: float,
    counting: bool = False,
    module: str = "runs.measure",
    valgrind: bool = False,
) -> dict[str, Any]:
    """What a contestant needs for a workload.

    Args:
        within: seconds that the process may take in all.
        module: what measures it.
        valgrind: run it under Callgrind, which counts nothing until it is told to.

    Raises:
        Failed: it took longer, or it broke.
    """
    with tempfile.TemporaryDirectory() as name, place_for(contestant, Path(name), server) as place:
        on = server if contestant.database == "postgres" else None
        task = {
            "contestant": contestant.name,
            "workload": asdict(workload),
            "place": {"file": str(place.file) if place.file else None, "url": place.url},
            "server": asdict(on) if on else None,
            "counting": counting,
        }
        return run(module, json.dumps(task), within, valgrind=valgrind)


@contextmanager
def place_for(contestant: Contestant, folder: Path, server: Server | None) -> Generator[Place]:
    if contestant.database == "postgres":
        assert server is not None
        with server.database() as url:
            yield Place(url=url)
    else:
        yield Place(file=folder / "bench.db" if contestant.database == "sqlite" else None)


def run(module: str, argument: str, within: float, *, valgrind: bool = False) -> dict[str, Any]:
    """Run a module of the bench on an argument; it writes its answer to the file named next.

    Under Callgrind, what that counts is written beside the answer.

    Raises:
        Failed: it took longer, or it broke.
    """
    with tempfile.TemporaryDirectory() as name:
        answer, log = Path(name) / "answer", Path(name) / "log"
        under = [*CALLGRIND, f"--callgrind-out-file={name}/callgrind"] if valgrind else []
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*under, sys.executable, "-m", module, argument, str(answer)],
                cwd=BENCH,
                env={**os.environ, "PYTHONHASHSEED": "1"} if valgrind else None,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                code = process.wait(within)
            except subprocess.TimeoutExpired:
                raise Failed(f"took longer than {within:.0f} s") from None
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code or not answer.exists():
            raise Failed(last_line(log))
        return json.loads(answer.read_text())


def last_line(log: Path) -> str:
    lines = [line.strip(" |+-") for line in log.read_text(errors="replace").splitlines()]
    said = [line for line in lines if "Error" in line or "Exception" in line] or lines
    return (said[-1] if said else "it ended without a word")[:200]
