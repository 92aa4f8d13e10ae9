"""Processes that are cheap to start and certain to end.

They are forked from one server process that has imported everything and opened nothing
(multiprocessing's forkserver): a start costs milliseconds, and no child inherits a connection,
a thread or an event loop.
"""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from typing import Any

DEADLINE_SECONDS = 300.0
"""For everything that is waited for: generous, so that a slow machine fails nothing."""

_CONTEXT = multiprocessing.get_context("forkserver")
# Also what a run imports when it needs it, and pytest, which a child would import again as its
# parent's main module.
PRELOADED = [
    "crash.children",
    "crash.warm",
    "durably.ledger.sqlite.database",
    "durably.ledger.postgres.database",
    "durably.dispatch.oban",
    "anyio._backends._asyncio",
    "pytest",
]
_CONTEXT.set_forkserver_preload(PRELOADED)


def preload(*modules: str) -> None:
    """Have processes find these imported as well; of no use once the server runs."""
    _CONTEXT.set_forkserver_preload([*PRELOADED, *modules])


def start_server() -> None:
    """Start the server that forks, unless it runs."""
    # It does not look where its parent imports from (Python 3.13.0 and others), only here.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def die_with_parent() -> None:
    """Called in a process that was started here: it does not outlive whoever started it.

    Nor does one that stands still then: on Linux it is killed when the server that forked it ends.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "nobody started it"

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "linux":
        # The server ends when nobody has this any more; processes that stand still would.
        os.close(forkserver._forkserver._forkserver_alive_fd)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


PR_SET_PDEATHSIG = 1

_LOCK = threading.Lock()
"""multiprocessing looks after all children at each start, and two threads must not look at once."""


class Processes:
    """Starts processes, and ends all of them when it is closed."""

    def __init__(self) -> None:
        start_server()
        self._started: list[BaseProcess] = []

    def start(self, life: Callable[..., None], *args: Any, **options: Any) -> BaseProcess:
        process = _CONTEXT.Process(target=life, args=args, kwargs=options, daemon=True)
        with _LOCK:
            process.start()
        self._started.append(process)
        return process

    def run(self, life: Callable[..., None], *args: Any) -> int:
        """Start a process and wait for its end; returns its exit code, or minus its signal."""
        return ended(self.start(life, *args))

    def close(self) -> None:
        for process in self._started:
            if is_alive(process):
                process.kill()  # Also ends one that is stopped.
            ended(process)
        self._started.clear()


def ended(process: BaseProcess) -> int:
    """Wait for a process to end."""
    connection.wait([process.sentinel], DEADLINE_SECONDS)
    with _LOCK:
        code = process.exitcode
    assert code is not None, f"process {process.pid} did not end in {DEADLINE_SECONDS:g} s"
    return code


def is_alive(process: BaseProcess) -> bool:
    with _LOCK:
        return process.is_alive()


def is_stopped(process: BaseProcess) -> bool:
    """Whether a process is stopped by SIGSTOP, as ``ps`` says it."""
    ps = ["ps", "-o", "state=", "-p", str(process.pid)]
    return subprocess.run(ps, capture_output=True, text=True).stdout.strip().startswith("T")


def eventually[T](what: str, look: Callable[[], T | None], seconds: float = DEADLINE_SECONDS) -> T:
    """Look until there is something to see; fail at the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}"
        time.sleep(0.02)
    return found
