"""One site under chaos: a database, its workers, customers and a person, each a process.

Owns what is started, broken, mended and ended, and how it runs dry; the schedule is `chaos`'s, what
must hold is `audit`'s.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from crash.databases import PostgresDatabase
from crash.processes import Processes, ended, is_alive
from crash.scenarios import BOOKINGS
from crash.world import World
from durably import Durably
from soak import chaos, children
from soak.audit_waits import JOBS
from soak.chaos import Action
from soak.children import Life
from soak.workload import TAG, TAG_BUDGET, Soaked
from support.postgres_server import PostgresServer

TICK_SECONDS = 0.05
REST_SECONDS = 0.2
"""Until a process that is gone is started again, unless the schedule says more."""

STOPPED_LEASES = 1.5
"""How long a worker stands still that stopped itself at a boundary."""

LEAVING_SECONDS = 180.0
"""How long a process may take to leave when it is told to."""

DRY_SECONDS = 600.0
"""How long runs may take to their ends once the chaos is over."""

WARM_SECONDS = 120.0
"""How long the chaos waits for the first run."""

LAST_WORDS = 40
"""So many lines of what a process wrote are told, when it ended and should not have."""

LATER_SECONDS = 1200.0
"""How long the processes of a soak live beyond its chaos, if nobody ends them."""

OPEN = """
SELECT r.key, r.state, r.waiting_on, r.attempt, r.worker_id FROM durably_runs r
JOIN durably_inputs i ON i.run_id = r.id
WHERE r.state NOT IN ('completed', 'discarded', 'cancelled')
  AND NOT (r.state = 'suspended' AND CAST(i.prompt AS TEXT) LIKE '"parked %')
ORDER BY r.id
"""

STATES = "SELECT state, count(*) AS runs FROM durably_runs GROUP BY state"


class Slot:
    """A place for a process, which is started again whenever it is gone.

    Attributes:
        ends_at: by then it must have left, since it was told to.
        resumes_at: when it goes on, if it stands still.
    """

    def __init__(self, name: str, start: Callable[[int], BaseProcess]) -> None:
        self.name = name
        self._start = start
        self.starts = 0
        self.process: BaseProcess | None = None
        self.ending = False
        self.ends_at: float | None = None
        self.resumes_at: float | None = None
        self.starts_at = 0.0
        self.rest = REST_SECONDS
        self.wanted = True

    @property
    def alive(self) -> bool:
        return self.process is not None and is_alive(self.process)

    def start(self) -> None:
        self.ending, self.ends_at, self.resumes_at, self.rest = False, None, None, REST_SECONDS
        self.starts += 1
        self.process = self._start(self.starts)

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.pid is not None and self.alive:
            os.kill(self.process.pid, number)

    def end(self, number: signal.Signals, rest: float = REST_SECONDS) -> None:
        """Kill it, or tell it to leave; it is started again after a rest."""
        if self.alive:
            self.ending, self.rest = True, rest
            self.ends_at = time.monotonic() + LEAVING_SECONDS
            self.send(number)

    def freeze(self, seconds: float) -> None:
        if self.alive:
            self.send(signal.SIGSTOP)
            self.resumes_at = max(self.resumes_at or 0.0, time.monotonic() + seconds)

    @property
    def is_stopped(self) -> bool:
        try:
            return self.process is not None and (
                psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED
            )
        except psutil.NoSuchProcess:
            return False


class Arena:
    """One site and all that happens to it.

    Attributes:
        done: how often each thing was done to it.
        wrong: what went wrong with its processes, a sentence each.
    """

    def __init__(
        self,
        folder: Path,
        dialect: str,
        *,
        seed: int,
        seconds: float,
        workers: int = 3,
        customers: int = 40,
        pace: float = 1.0,
        server: PostgresServer | None = None,
        flaw: str = "",
    ) -> None:
        folder.mkdir()
        self.folder, self.dialect = folder, dialect
        self._seed, self._flaw, self._customers = seed, flaw, customers
        self._server = server
        self.lease_seconds = chaos.LEASE_SECONDS * pace
        if server is not None:
            (folder / "url").write_text(server.url())
        self.site = Soaked.at(World(folder))
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.seconds = seconds
        self._life_seconds = seconds + LATER_SECONDS
        self._strikes = True
        self._over = False
        self._processes = Processes()
        self._pool = ThreadPoolExecutor(1)  # The database is broken in one way at a time.
        self._breaking: list[Future[None]] = []
        self._workers = [Slot(f"worker-{n}", self._starter(n)) for n in range(workers)]
        self._client = Slot("client", self._start_client)
        self._person = Slot("person", self._start_person)
        self._slots = [*self._workers, self._client, self._person]
        asyncio.run(_prepare(self.site.world))

    # --- what it goes through

    def soak(self, actions: list[Action]) -> None:
        """Do everything to it when its time comes, and keep its processes going."""
        self._warm_up()
        began = time.monotonic()
        waiting = actions[::-1]
        while (now := time.monotonic() - began) < self.seconds:
            while waiting and waiting[-1].at <= now:
                self._do(waiting.pop())
            self._tend()
            time.sleep(TICK_SECONDS)

    def _warm_up(self) -> None:
        """Wait until the first run has ended: before that, nothing would be disturbed."""
        give_up_at = time.monotonic() + WARM_SECONDS
        while "completed" not in (self.states() or {}) and time.monotonic() < give_up_at:
            self._tend()
            time.sleep(TICK_SECONDS)

    def run_dry(self) -> list[dict[str, Any]]:
        """End the chaos, and wait for every run, and on PostgreSQL every job; returns those that
        have no end in time."""
        self._strikes = False
        while not all(work.done() for work in self._breaking):
            self._tend()  # One that stands still may have the lock that is waited for.
            time.sleep(TICK_SECONDS)
        for work in self._breaking:
            work.result()
        self.site.world.open_gate()
        self._client.wanted = False  # It leaves when all its runs have ended.
        give_up_at = time.monotonic() + DRY_SECONDS
        while (left := self.open_runs() or self.open_jobs()) and time.monotonic() < give_up_at:
            for _ in range(10):
                self._tend()
                time.sleep(TICK_SECONDS)
        return left

    def close(self) -> None:
        """End every process, the workers as a deploy does."""
        for slot in self._slots:
            slot.wanted = False
            slot.send(signal.SIGCONT)
        self._wait_for(self._client)
        self._person.end(signal.SIGKILL)
        for slot in self._workers:
            slot.end(signal.SIGTERM)
        for slot in (*self._workers, self._person):
            self._wait_for(slot)
        self.kill()

    def kill(self) -> None:
        """End every process at once, and leave none."""
        self._over = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._processes.close()  # What the database's disturber waits for may be one of them.
        self._pool.shutdown()
        self._processes.close()

    # --- what it looks like

    def open_runs(self) -> list[dict[str, Any]]:
        """Runs that are to end and have not; not those that wait for what never comes."""
        return self.site.world.database.rows(OPEN)

    def open_jobs(self) -> list[dict[str, Any]]:
        """Jobs to be looked at again, such as one that came while another attempt held its run."""
        database = self.site.world.database
        return [] if database.dialect == "sqlite" else database.rows(JOBS)

    def states(self) -> dict[str, int] | None:
        """How many runs there are of each state; None while the database is away."""
        database = self.site.world.database
        try:
            return {row["state"]: row["runs"] for row in database.rows(STATES)}
        except database.broken:
            return None

    @property
    def pids(self) -> list[int]:
        return [slot.process.pid for slot in self._slots if slot.process and slot.process.pid]

    # --- its processes

    def _starter(self, number: int) -> Callable[[int], BaseProcess]:
        def start(starts: int) -> BaseProcess:
            strike, freezes = chaos.strike_of(self._seed, self.dialect, number, starts)
            life = Life(
                self._life_seconds,
                self.lease_seconds,
                strike if self._strikes else None,
                freezes,
                self._flaw,
            )
            args = self.folder, f"worker-{number}", life
            return self._processes.start(children.worker, *args)

        return start

    def _start_client(self, starts: int) -> BaseProcess:
        args = self.folder, f"client.{starts}", self._life_seconds, self._customers
        return self._processes.start(children.client, *args)

    def _start_person(self, starts: int) -> BaseProcess:
        args = self.folder, "person", self._life_seconds
        return self._processes.start(children.person, *args)

    def _tend(self) -> None:
        """Start again what is gone, let go on what has stood still long enough."""
        if self._over:
            raise RuntimeError("The soak was called off.")
        now = time.monotonic()
        for slot in self._slots:
            if slot.process is None:
                slot.start()
            elif not slot.alive:
                self._restart(slot, now)
            elif slot.ends_at is not None and now > slot.ends_at:
                self.wrong.append(f"{slot.name} did not leave in {LEAVING_SECONDS:g} s.")
                slot.end(signal.SIGKILL)
            elif slot.resumes_at is not None and now > slot.resumes_at:
                slot.resumes_at = None
                slot.send(signal.SIGCONT)
            elif slot.resumes_at is None and slot.is_stopped:
                self.done["stopped at a boundary"] += 1
                slot.resumes_at = now + STOPPED_LEASES * self.lease_seconds

    def _restart(self, slot: Slot, now: float) -> None:
        if slot.starts_at == 0.0:
            slot.starts_at = now + slot.rest
            self._say_how_it_ended(slot)
        if now >= slot.starts_at and slot.wanted:
            slot.starts_at = 0.0
            slot.start()

    def _say_how_it_ended(self, slot: Slot) -> None:
        assert slot.process is not None
        code = ended(slot.process)
        if slot.ending:
            if code not in (0, -signal.SIGTERM, -signal.SIGKILL):
                what = "was told to leave, and ended"
                self.wrong.append(f"{slot.name} {what} with code {code}. {self._last_words(slot)}")
        elif code == -signal.SIGKILL and slot in self._workers:
            self.done["killed at a boundary"] += 1
        elif code != 0 or slot is not self._client or slot.wanted:
            what = "ended by itself,"
            self.wrong.append(f"{slot.name} {what} with code {code}. {self._last_words(slot)}")

    def _last_words(self, slot: Slot) -> str:
        """The end of what it wrote: the folder may be on a machine that nobody can look at."""
        lines = (self.folder / f"{slot.name}.log").read_text(errors="replace").splitlines()
        return "\n".join(["It wrote:", *lines[-LAST_WORDS:]])

    def _wait_for(self, slot: Slot) -> None:
        """Wait until it has left."""
        give_up_at = time.monotonic() + LEAVING_SECONDS
        while slot.alive:
            if time.monotonic() > give_up_at:
                self.wrong.append(f"{slot.name} did not leave in {LEAVING_SECONDS:g} s.")
                slot.send(signal.SIGKILL)
                return
            time.sleep(TICK_SECONDS)
        if slot.process is not None and slot.starts_at == 0.0:
            self._say_how_it_ended(slot)

    # --- what is done to it

    def _do(self, action: Action) -> None:
        self.done[action.what] += 1
        worker = self._workers[action.worker]
        match action.what:
            case "kill":
                worker.end(signal.SIGKILL, action.seconds)
            case "terminate":
                worker.end(signal.SIGTERM, action.seconds)
            case "freeze" | "freeze past the lease":
                worker.freeze(action.seconds)
            case "kill all":
                for slot in self._workers:
                    slot.end(signal.SIGKILL, action.seconds)
            case "kill the client":
                self._client.end(signal.SIGKILL, action.seconds)
            case "kill the person":
                self._person.end(signal.SIGKILL, action.seconds)
            case _:
                self._breaking.append(self._pool.submit(self._break, action))

    def _break(self, action: Action) -> None:
        """Do something to the database, and undo it."""
        match action.what:
            case "hold the write lock":
                self._processes.run(children.hold_lock, self.folder, action.seconds)
            case "die while writing":
                self._processes.run(children.die_while_writing, self.folder)
            case _:
                assert self._server is not None
                _break_server(self._server, action)


def _break_server(server: PostgresServer, action: Action) -> None:
    match action.what:
        case "cut connections":
            PostgresDatabase(server.url()).execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            return
        case "freeze the server":
            with server.frozen():
                time.sleep(action.seconds)
            return
        case "restart":
            server.stop("fast")
        case "restart at once":
            server.stop("immediate")
        case _:
            server.kill()
    time.sleep(action.seconds)
    server.start()


async def _prepare(world: World) -> None:
    app = Durably(world.url)
    await app.migrate()
    await app.set_budget(TAG_BUDGET, tag=TAG)
    await app.close()
    world.database.execute(BOOKINGS)
