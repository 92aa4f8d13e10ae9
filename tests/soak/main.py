"""``python -m soak``: soak both databases for some minutes, and check every promise after it.

Owns the command, what it prints and what it leaves; what happens meanwhile is `arena`'s.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from crash.processes import preload
from soak import audit, audit_histories, audit_waits, chaos
from soak.arena import Arena
from soak.audit import Check
from soak.evidence import Evidence, dump
from support.memory import use_memory
from support.pace import pace_of_this_machine
from support.postgres import folder_for_all
from support.postgres_run import Run
from support.postgres_server import PostgresServer

WORKERS = 3
SAY_SECONDS = 5.0
SHOWN = 10
"""How many violations of one promise are printed; all are in the folder."""

PROMISES: dict[str, Check] = {
    "Nothing is lost": audit.nothing_is_lost,
    "Nothing is paid twice": audit.nothing_is_paid_twice,
    "Finished tools stay finished": audit.finished_tools_stay_finished,
    "No silent repeat": audit.no_silent_repeat,
    "Saved before acting": audit.nothing_acts_before_it_is_saved,
    "Exactly once in the same database": audit.transactions_hold_both,
    "One writer": audit.one_attempt_at_a_time,
    "Histories are whole and right": audit_histories.histories_are_whole,
    "Events tell everything, in order": audit_histories.events_tell_everything_in_order,
    "Threads go one at a time": audit_histories.threads_go_one_at_a_time,
    "Timers and signals count once": audit_waits.waits_are_over_once,
    "Children exist once": audit_waits.children_exist_once,
    "People decide once": audit_waits.people_decide_once,
    "Budgets are the sum of their runs": audit_waits.budgets_are_the_sum,
}


class Soak:
    """One database's part: its arena, and what came of it.

    Attributes:
        failures: what is wrong, by promise.
    """

    def __init__(self, arena: Arena, actions: list[chaos.Action]) -> None:
        self.arena = arena
        self.actions = actions
        self.evidence: Evidence | None = None
        self.failures: dict[str, list[str]] = {}
        self.stage = "chaos"
        self.error: BaseException | None = None

    def run(self) -> None:
        """Chaos, then calm, then the audit; nothing of it is left."""
        try:
            self.arena.soak(self.actions)
            self.stage = "running dry"
            self.arena.run_dry()
            self.stage = "leaving"
            self.arena.close()
            time.sleep(self.arena.lease_seconds)  # Dead workers' leases end as well.
            self.stage = "audit"
            self._check()
            self.stage = "over"
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.arena.kill()

    def _check(self) -> None:
        evidence = self.evidence = Evidence.of(self.arena.site)
        checks: dict[str, Callable[[], Iterator[str]]] = {
            name: lambda check=check: check(evidence) for name, check in PROMISES.items()
        }
        database = self.arena.site.world.database
        checks["Nothing is left"] = lambda: audit_waits.nothing_is_left(evidence, database)
        checks["Processes end when they are told to"] = lambda: self._processes()
        self.failures = {name: list(check()) for name, check in checks.items()}
        if self.failed:
            dump(self.arena.site)  # A server's data is gone with it.

    def _processes(self) -> Iterator[str]:
        yield from self.arena.wrong
        for pid in self.arena.pids:
            if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                yield f"Process {pid} is left."

    @property
    def failed(self) -> bool:
        return self.error is not None or any(self.failures.values())


def soak(
    folder: Path,
    dialects: list[str],
    *,
    seed: int,
    seconds: float,
    workers: int = WORKERS,
    customers: int = 40,
    pace: float = 1.0,
    flaw: str = "",
    say: Callable[[str], None] = print,
) -> dict[str, Soak]:
    """Soak the databases side by side; returns what came of each, all processes ended."""
    with ExitStack() as stack:
        soaks: dict[str, Soak] = {}
        for dialect in dialects:
            server = stack.enter_context(_server()) if dialect == "postgres" else None
            actions = chaos.schedule(seed, dialect, seconds, workers, pace)
            arena = Arena(
                folder / dialect,
                dialect,
                seed=seed,
                seconds=seconds,
                workers=workers,
                customers=customers,
                pace=pace,
                server=server,
                flaw=flaw,
            )
            stack.callback(arena.kill)
            (folder / dialect / "schedule").write_text("\n".join(map(str, actions)))
            say(f"{dialect}: {chaos.summary(actions)}")
            soaks[dialect] = Soak(arena, actions)
        threads = [threading.Thread(target=s.run, daemon=True) for s in soaks.values()]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(SAY_SECONDS)
            if threads[0].is_alive() is False:
                threads[-1].join(SAY_SECONDS)
            say(
                f"{time.monotonic() - began:5.0f} s  "
                + "  |  ".join(map(_progress, soaks.values()))
            )
        return soaks


def _progress(soak: Soak) -> str:
    if soak.stage not in ("chaos", "running dry"):
        return f"{soak.arena.dialect}: {soak.stage}"
    states = soak.arena.states()
    chaos_so_far = f"{sum(soak.arena.done.values())} disturbances"
    if states is None:
        return f"{soak.arena.dialect}: the database is away, {chaos_so_far}"
    done = sum(states.get(state, 0) for state in ("completed", "discarded", "cancelled"))
    open_runs = sum(states.values()) - done
    return f"{soak.arena.dialect}, {soak.stage}: {done} runs done, {open_runs} open, {chaos_so_far}"


@contextmanager
def _server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the soak's own, of which nothing is left, however the soak ends."""
    run = Run(folder_for_all() / f"durably-soak-{secrets.token_hex(4)}", os.getpid())
    try:
        server = run.new_server("soak")
        server.start()
        yield server
    finally:
        run.clean()


# --- what is said in the end


def report(soak: Soak) -> Iterator[str]:
    """What happened on one database, and the verdict about each promise."""
    evidence, arena = soak.evidence, soak.arena
    yield f"== {arena.dialect}"
    if evidence is None:
        yield f"There was no audit: {soak.error!r}"
        return
    runs = evidence.runs.values()
    states = Counter(run.state for run in runs)
    outcomes = Counter(outcome for run in runs for outcome in run.outcomes.values())
    late = sum(event["kind"] == "late_evidence" for run in runs for event in run.events)
    refused = sum(sum(run.deeds.refused.values()) for run in runs)
    paid = sum(len(run.deeds.paid) for run in runs)
    saved = sum(len(run.responses) for run in runs)
    yield f"runs          {len(runs)}: {_counts(states)}"
    yield f"attempts      {sum(outcomes.values())}: {_counts(outcomes)}"
    yield f"disturbances  {sum(arena.done.values())}: {_counts(arena.done)}"
    yield f"responses     {saved} saved, {paid} paid"
    yield f"doubts        {evidence.asked} asked about, {late} late words, {refused} calls refused"
    yield ""
    yield f"{'policy':18}{'calls':>8}{'effects':>9}{'repeats':>9}"
    for policy, counts in evidence.effects_by_policy().items():
        yield f"{policy:18}{counts[0]:8}{counts[1]:9}{counts[2]:9}"
    yield ""
    for promise, found in soak.failures.items():
        yield f"{promise:40}{'holds' if not found else f'BROKEN {len(found)} times'}"
        yield from (textwrap.indent(sentence, "    ") for sentence in found[:SHOWN])
    yield ""


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{times} {what}" for what, times in counts.most_common())


# --- the command


def main() -> None:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long the chaos lasts")
    parser.add_argument("--seed", type=int, default=None, help="default: a random one")
    parser.add_argument("--database", choices=["sqlite", "postgres", "both"], default="both")
    parser.add_argument("--workers", type=int, default=WORKERS, help="on each database")
    parser.add_argument("--customers", type=int, default=40, help="runs at once, on each database")
    parser.add_argument(
        "--pace", type=float, default=None, help="stretches leases and times; default: measured"
    )
    options = parser.parse_args()
    pace = pace_of_this_machine() if options.pace is None else options.pace
    seed = random.randrange(10**6) if options.seed is None else options.seed
    dialects = ["sqlite", "postgres"] if options.database == "both" else [options.database]
    use_memory()
    preload("soak.children")
    folder = Path(tempfile.mkdtemp(prefix="durably-soak-"))
    # Told to stop, it ends what it has started as when it is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(
        f"Soaking {' and '.join(dialects)} for {options.minutes:g} min, seed {seed}, "
        f"pace {pace:.1f}, in {folder}"
    )
    soaks = soak(
        folder,
        dialects,
        seed=seed,
        seconds=options.minutes * 60,
        workers=options.workers,
        customers=options.customers,
        pace=pace,
        say=lambda text: print(text, flush=True),
    )
    for each in soaks.values():
        text = "\n".join(report(each))
        print(f"\n{text}", flush=True)
    if not any(each.failed for each in soaks.values()):
        shutil.rmtree(folder)
        print(f"Every promise holds (seed {seed}).")
        return
    for each in soaks.values():
        violations = "\n".join(f"{n}: {s}" for n, found in each.failures.items() for s in found)
        (each.arena.folder / "violations").write_text(violations)
    print(f"A promise is broken (seed {seed}). Ledgers, records and logs are in {folder}")
    sys.exit(1)
