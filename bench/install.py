"""Installs requirements-bench.lock into the environment that runs this, one peer or all failing.

All at once if that works. Else one distribution after the other, so that a peer that cannot be had
on this machine takes no other along; what failed is told, and the report of `make bench` names it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PIP = (sys.executable, "-m", "pip", "install", "-qq", "--no-compile", "--no-deps")
BUILD = ("--no-build-isolation", "--require-hashes", "-r")


def main(lock: Path) -> None:
    if subprocess.run([*PIP, *BUILD, str(lock)], check=False).returncode == 0:
        return
    print("Some of it did not install: now one by one", file=sys.stderr)
    failed = [name for name, text in requirements(lock.read_text()) if not installed(text)]
    if failed:
        print(f"Not installed, and so not measured: {', '.join(failed)}", file=sys.stderr)


def requirements(lock: str) -> list[tuple[str, str]]:
    """Each requirement of a lock: the distribution's name, and its lines with their hashes."""
    found: list[tuple[str, list[str]]] = []
    for line in lock.splitlines():
        if line[:1].isalnum():
            found.append((line.split("==")[0], [line]))
        elif found and line.lstrip().startswith("--hash="):
            found[-1][1].append(line)
    return [(name, "\n".join(lines)) for name, lines in found]


def installed(requirement: str) -> bool:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirement + "\n")
        file.flush()
        return subprocess.run([*PIP, *BUILD, file.name], check=False).returncode == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
