"""Runs `durably` commands as processes of their own, forked from one that has imported it already.

A command costs milliseconds instead of the seconds that a fresh Python takes to import the agents.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


class QuickShell:
    """A process that forks one child per command and tells how it ended."""

    def __init__(self, env: dict[str, str]) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            text=True,
        )

    def run(self, args: list[str], folder: Path, output: Path) -> int:
        """Run ``durably args`` in ``folder``; what it says, also on stderr, goes to a file."""
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self._popen.stdin.write(json.dumps([args, str(folder), str(output)]) + "\n")
        self._popen.stdin.flush()
        return int(self._popen.stdout.readline())

    def close(self) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._popen.wait(10)


def _serve() -> None:
    import pydantic_ai.models.function
    import pydantic_ai.models.test  # noqa: F401

    import durably.app
    import durably.cli.main
    import durably.cli.output

    durably.cli.main.all_commands()  # so that no command has to make it
    for line in sys.stdin:
        args, folder, output = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(durably.cli.main, args, folder, output)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(cli: Any, args: list[str], folder: str, output: str) -> None:
    os.chdir(folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, path, mode in ((0, os.devnull, os.O_RDONLY), (1, output, flags)):
        file = os.open(path, mode)
        os.dup2(file, number)
        os.close(file)
    os.dup2(1, 2)
    sys.argv = ["durably", *args]
    try:
        cli.main()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
    finally:
        os._exit(99)


if __name__ == "__main__":
    _serve()
