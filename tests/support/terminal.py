"""A process in a terminal of its own, whose keyboard is the test's."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence

ROWS, COLUMNS = 50, 120

# The terminal becomes the process's own, so that Ctrl-C in it is a SIGINT.
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; "
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A process that has a terminal; it is killed when the block ends."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], deadline_seconds: float
    ) -> None:
        self._screen, inside = pty.openpty()
        termios.tcsetwinsize(inside, (ROWS, COLUMNS))
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command],
            env={**env, "TERM": "xterm"},
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
        )
        os.close(inside)
        self._shown = b""
        self._looked_at = 0
        self._deadline = time.monotonic() + deadline_seconds

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._screen)

    @property
    def shown(self) -> str:
        """Everything that was ever on the screen, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._shown.decode()).replace("\r", "")

    def wait_for(self, pattern: str) -> re.Match[bytes]:
        """Wait until something is shown that was not shown before the last such wait ended."""
        wanted = re.compile(pattern.encode())
        while (found := wanted.search(self._shown, self._looked_at)) is None:
            assert self._read(), f"it ended without {pattern!r}: {self.shown}"
        self._looked_at = found.end()
        return found

    def type(self, keys: str) -> None:
        """Type something."""
        os.write(self._screen, keys.encode())

    def ended(self) -> int:
        """Wait until it has ended; its exit code."""
        while self._read():
            pass
        return self.process.wait(max(self._deadline - time.monotonic(), 0))

    def _read(self) -> bool:
        """Read what is shown next; False if nobody has the terminal any more."""
        left = max(self._deadline - time.monotonic(), 0)
        assert select.select([self._screen], [], [], left)[0], f"nothing more came: {self.shown}"
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # on Linux, the end
            data = b""
        self._shown += data
        return bool(data)
