"""A dashboard beside a command that does something else: a process of its own, ended with it.

Owns that process; what it serves is ``durably web``'s.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from types import FrameType

from durably.cli.exits import Refused

GRACE_SECONDS = 10.0


class Dashboard:
    """``durably web`` on a ledger, from `open` until `close`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def open(self, url: str) -> str:
        """Start it, and say where it is; returns its address, with the token that logs in.

        Args:
            url: the ledger's; it goes by the environment, where nobody else reads it.

        Raises:
            Refused: it does not start; why is on stderr.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "durably", "web", "--log-level", "warning"],
            env=os.environ | {"DURABLY_URL": url},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is ours to hand on.
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("Dashboard "):
                print(line, end="", flush=True)
                return line.split()[1]
        raise Refused("The dashboard did not start.")

    def wait(self) -> None:
        """Stay until somebody ends it, with Ctrl-C or SIGTERM."""
        if self._process is None:
            return
        signal.signal(signal.SIGTERM, _interrupt)
        print("The dashboard stays open; end it with Ctrl-C.", flush=True)
        with suppress(KeyboardInterrupt):
            self._process.wait()

    def close(self) -> None:
        """End it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
