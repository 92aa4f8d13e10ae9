"""Starts `durably` processes by forking one that has imported everything and opened nothing.

A start costs milliseconds instead of the second and more that a fresh Python takes to import the
agents. What is started is a process as any other: it gets signals, and ends by itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any


class Launched:
    """A process that was started; what it says, also on stderr, goes to a file.

    Attributes:
        pid: where signals go.
    """

    def __init__(self, pid: int, status: Path) -> None:
        self.pid = pid
        self._status = status

    def poll(self) -> int | None:
        """Its exit code as subprocess has it, or None while it lives."""
        return int(self._status.read_text()) if self._status.exists() else None

    def wait(self, seconds: float) -> int:
        give_up_at = time.monotonic() + seconds
        while (code := self.poll()) is None:
            assert time.monotonic() < give_up_at, f"process {self.pid} does not end"
            time.sleep(0.01)
        return code


def launch(arguments: tuple[str, ...], output: Path) -> Launched:
    """Run ``durably arguments`` here, with this process's environment as it is now."""
    server, status = _server(), output.with_suffix(".status")
    assert server.stdin is not None and server.stdout is not None
    asked = [[*arguments], dict(os.environ), str(Path.cwd()), str(output), str(status)]
    server.stdin.write(json.dumps(asked) + "\n")
    server.stdin.flush()
    return Launched(int(server.stdout.readline()), status)


@cache
def _server() -> subprocess.Popen[str]:
    # It ends with this process, which then closes its stdin.
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


# --- the process that forks


def _serve() -> None:
    import psycopg_pool  # noqa: F401
    import pydantic_ai.models.function
    import pydantic_ai.models.test  # noqa: F401

    import durably.app
    import durably.cli.main
    import durably.cli.worker
    import durably.dispatch.oban
    import durably.ledger.postgres.database
    import durably.ledger.sqlite.database
    import durably.worker

    durably.cli.main.all_commands()  # so that no command has to make it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    for line in sys.stdin:
        if os.fork() == 0:
            _keep(durably.cli.main, *json.loads(line))


def _keep(
    cli: Any, arguments: list[str], env: dict[str, str], cwd: str, output: str, status: str
) -> None:
    """Start a process, say which it is, and note how it ended: only its parent can know."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        _become(cli, arguments, env, cwd, output)
    print(child, flush=True)
    _, ended = os.waitpid(child, 0)
    new = Path(f"{status}.new")
    new.write_text(str(os.waitstatus_to_exitcode(ended)))
    new.rename(status)
    os._exit(0)


def _become(cli: Any, arguments: list[str], env: dict[str, str], cwd: str, output: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[0] = cwd  # as python -m has it; until now, this script's folder
    for number, path, mode in (
        (0, os.devnull, os.O_RDONLY),
        (1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        file = os.open(path, mode)
        os.dup2(file, number)
        os.close(file)
    os.dup2(1, 2)
    sys.argv = ["durably", *arguments]
    code: Any = 99
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
