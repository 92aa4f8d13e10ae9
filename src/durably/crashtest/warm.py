"""A process that has imported the application already, and forks one child for each job.

Owns the children: each in a session of its own, ended with all that its tools started, when its
time is over, or when whoever asked for it has gone. A process that has other threads is not forked:
there, each child is a new interpreter.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from durably.app import Durably

TIMED_OUT = "timed out"


def serve(module: str, import_module: Callable[[], object], load: Callable[[], Durably]) -> None:
    """Do jobs, one after another, as they are asked for on stdin; tell of each on stdout.

    Args:
        module: this program, for children that are new interpreters: ``python -m module``.
        import_module: imports the application, and makes nothing yet.
        load: gives the application; called in each child.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Whoever asks ends the children.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import_module()
    _import_the_rest()
    forks = threading.active_count() == 1 and _threads() == 1
    gc.freeze()
    told = _Ends()
    print(json.dumps({"ready": True, "forks": forks}), file=answers, flush=True)
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        job, log = Path(asked["job"]), Path(asked["log"])
        pid = _fork(job, log, load, answers, told) if forks else _start(module, job, log)
        print(json.dumps({"started": pid}), file=answers, flush=True)
        ended = told.wait(pid, asked["seconds"])
        print(json.dumps({"ended": ended}), file=answers, flush=True)


def _import_the_rest() -> None:
    """What a run imports when it needs it, and what takes long to build; opens nothing."""
    for name in _NEEDED:
        importlib.import_module(name)
    with suppress(ImportError):
        for name in _NEEDED_ON_POSTGRES:
            importlib.import_module(name)
    from durably.agents import codec, history

    history.message_from_json('{"kind": "request", "parts": []}')
    codec.decode_prompt(codec.encode_prompt("Hello?"))
    codec.encode_output("agent", "Hello.")
    codec.encode_result("tool", "Hello.")


_NEEDED = (
    "anyio._backends._asyncio",
    "pydantic_ai.models.function",
    "durably.crashtest.life",
    "durably.ledger.sqlite.database",
)
_NEEDED_ON_POSTGRES = ("durably.dispatch.oban", "durably.ledger.postgres.database")


def _threads() -> int:
    """How many threads the system knows, also those that Python did not start."""
    with suppress(OSError):
        return len(list(Path("/proc/self/task").iterdir()))
    return 1


def do(job: Path, load: Callable[[], Durably]) -> int:
    """The whole life of a child; returns its exit code."""
    from durably.crashtest.life import live

    try:
        live(job, load)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _fork(job: Path, log: Path, load: Callable[[], Durably], answers: TextIO, told: _Ends) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        told.close()
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with log.open("ab") as said, Path(os.devnull).open("rb") as nothing:
            for number, file in ((0, nothing), (1, said), (2, said)):
                os.dup2(file.fileno(), number)
        answers.close()
        code = do(job, load)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _start(module: str, job: Path, log: Path) -> int:
    with log.open("ab") as said:
        command: Sequence[str] = [sys.executable, "-m", module, *sys.argv[1:], str(job)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
    process.returncode = 0  # It is waited for here, not by its object.
    return process.pid


class _Ends:
    """Learns of children that end, and that nobody asks any more."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        signal.signal(signal.SIGCHLD, _look)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def close(self) -> None:
        """In a child, which has its own."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(self._read)
        os.close(self._write)

    def wait(self, pid: int, seconds: float) -> int | str:
        """Wait for a child; end it, and all that it started, when it takes longer.

        Returns:
            Its exit code, or minus the signal that killed it; or `TIMED_OUT`.
        """
        deadline = time.monotonic() + seconds
        timed_out = False
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # What its tools started, and is left.
                return TIMED_OUT if timed_out else os.waitstatus_to_exitcode(status)
            left = deadline - time.monotonic()
            if left <= 0 and not timed_out:
                timed_out = True
                _end_session(pid)
            # Nothing is asked for while a child is at work: this is the end of the questions.
            ready, _, _ = select.select([0, self._read], [], [], max(left, 0.2))
            if 0 in ready:
                _end_session(pid)
                os._exit(1)
            with suppress(BlockingIOError):
                os.read(self._read, 4096)


def _look(_number: int, _frame: object) -> None:
    """A child ended: `_Ends.wait` is woken."""


def _end_session(pid: int) -> None:
    """End a child, and whatever its tools started."""
    for end in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)
