"""What happens in the processes that are killed or stopped, and in those that take over.

Each function here is the whole life of one process. A person's part, deciding about calls in
doubt, is played here as well: they look at what the world's file says.
"""

import asyncio
import faulthandler
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_ai import Agent

from crash.jobs import JOBS
from crash.people import keep_company
from crash.scenarios import BOOKINGS, BUDGET, KEY, PROMPT, SCENARIOS, TAG
from crash.waiting import WAITING
from crash.world import Trace, World, receipt
from durably import Durably, LedgerUnavailable, Run, RunSuspended, boundaries

LIFE_SECONDS = 600
"""No process lives longer, whatever happens to the test that started it."""

PATIENCE_SECONDS = 300


@dataclass(frozen=True)
class Strike:
    """Where a process is hit: the n-th time that it reaches a boundary."""

    name: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.name} #{self.nth}"


def prepare(folder: Path) -> None:
    """An empty ledger in a file, with the table of the transactional tools."""
    begin(folder, "prepare")
    world = World(folder)

    async def create() -> None:
        async with Durably(world.url):
            pass

    asyncio.run(create())
    world.database.execute(BOOKINGS)


def recorded(folder: Path, scenario: str) -> None:
    """A whole run that nothing happens to; leaves the boundaries that it reached."""
    begin(folder, "recorded")
    trace = Trace()
    boundaries.observe(trace)
    asyncio.run(work(folder, scenario))
    (folder / "boundaries.json").write_text(json.dumps(trace.reached))


def killed(folder: Path, scenario: str, strike: Strike) -> None:
    """Work until the process kills itself at the strike; ends well if that is never reached."""
    begin(folder, "killed")
    die_at(folder, strike)
    asyncio.run(work(folder, scenario))


def successor(folder: Path, scenario: str, strike: Strike | None = None) -> None:
    """Take over from a worker that is dead, its lease over, and finish; or be killed as well."""
    begin(folder, "successor")
    if strike is not None:
        die_at(folder, strike)
    asyncio.run(work(folder, scenario, leases_end=True))


def frozen(folder: Path, scenario: str, strike: Strike, lease_seconds: float) -> None:
    """Work until the process stops itself at the strike; whoever continues it finds it too late."""
    begin(folder, "frozen")
    boundaries.observe(observe_at(strike, freeze))
    asyncio.run(work_until_final(folder, scenario, lease_seconds))


def rival(folder: Path, scenario: str) -> None:
    """Take over in time, while the other worker is stopped; nobody decides anything."""
    begin(folder, "rival")
    asyncio.run(work_until_final(folder, scenario))


def worker(
    folder: Path,
    job: str,
    *,
    lease_seconds: float = 30.0,
    grace_seconds: float = 30.0,
    strike: Strike | None = None,
) -> None:
    """A worker as it is deployed: until SIGTERM; at a strike it waits for the gate, and dies."""
    begin(folder, "worker")
    if strike is not None:
        boundaries.observe(observe_at(strike, lambda: _die_at_the_gate(folder, strike)))
    world = World(folder)
    app, _ = JOBS[job](world)
    asyncio.run(serve(world, app, lease=lease_seconds, grace=grace_seconds))


async def serve(world: World, app: Durably, **options: Any) -> None:
    """Work until SIGTERM."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with app, app.worker(**options):
        world.record("ready", pid=os.getpid())
        await told.wait()
    # A thread that a tool blocks must not keep a process that has left; `durably worker` does so.
    os._exit(0)


def _die_at_the_gate(folder: Path, strike: Strike) -> None:
    world = World(folder)
    world.record("at the gate", strike=str(strike))
    while not world.gate_is_open():
        time.sleep(0.02)
    die(folder, strike)


def freeze() -> None:
    """SIGSTOP, to this very thread: it is stopped before it goes on, and with it all others."""
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def die_at(folder: Path, strike: Strike) -> None:
    """Kill this process once it is at the strike."""
    boundaries.observe(observe_at(strike, lambda: die(folder, strike)))


def die(folder: Path, strike: Strike) -> None:
    """SIGKILL, to this very process."""
    World(folder).record("killed", at=str(strike), pid=os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)
    while True:  # Until the signal is delivered.
        time.sleep(1)


async def work(folder: Path, scenario: str, *, leases_end: bool = False) -> None:
    world = World(folder)
    waiting = WAITING.get(scenario)
    app, agent = (waiting or SCENARIOS[scenario]).app(world)
    async with app:
        if leases_end:
            let_leases_end(world)
        await app.set_budget(BUDGET, tag=TAG)
        run = await app.enqueue(agent, PROMPT, key=KEY, tags=[TAG])
        if waiting is not None:
            await keep_company(waiting, app, run, world)
            return
        async with app.worker():
            await finish(run, world)


async def work_until_final(folder: Path, scenario: str, lease_seconds: float | None = None) -> None:
    app, agent = SCENARIOS[scenario].app(World(folder))
    async with app:
        run = await enqueued(app, agent)
        async with app.worker(lease=lease_seconds):
            await run.result(timeout=PATIENCE_SECONDS)


async def enqueued(app: Durably, agent: Agent[None, str]) -> Run[str]:
    """Enqueue; ask once more where nobody heard whether it was committed, as any client would."""
    while True:
        try:
            return await app.enqueue(agent, PROMPT, key=KEY)
        except LedgerUnavailable:
            await asyncio.sleep(0.1)


async def finish(run: Run[str], world: World) -> None:
    """Wait for the end; decide what the run asks."""
    while True:
        try:
            await run.result(timeout=PATIENCE_SECONDS, wait_suspended=False)
            return
        except RunSuspended:
            await decide(run, world)


async def decide(run: Run[str], world: World) -> None:
    """Approve what waits for that; settle every call in doubt by what the file says."""
    for effect in await run.effects():
        if not effect.asked:
            continue
        if effect.ask == "approval":
            assert world.effects()[effect.idempotency_key] == 0, "it waits, and has happened"
            await run.approve(effect.call_id, by="ann")
            continue
        happened = world.effects()[effect.idempotency_key] > 0
        world.record("asked", key=effect.idempotency_key, happened=happened)
        if happened:
            answer = receipt(effect.tool_name, effect.idempotency_key)
            await run.resolve(effect.call_id, done=answer)
        else:
            await run.resolve(effect.call_id, again=True)


def let_leases_end(world: World) -> None:
    """As if time had passed: every worker known so far is dead."""
    world.database.execute("UPDATE durably_workers SET expires_at = heartbeat_at")


def observe_at(strike: Strike, act: Callable[[], None]) -> boundaries.Observer:
    """Observes boundaries, and acts at one of them."""
    trace = Trace()

    def observer(name: str) -> None:
        if trace.note(name) == strike.nth and name == strike.name:
            act()

    return observer


def begin(folder: Path, role: str, life_seconds: float = LIFE_SECONDS) -> None:
    """The first thing in each process: what it says goes into a file, and it does not live on."""
    log = os.open(folder / f"{role}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.dump_traceback_later(life_seconds, exit=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
