"""A whole crash test: record, rehearse, then crash and finish at one boundary after another.

Owns the order, the folders and the keys of the runs; each process's work is in `life`, what is
right and wrong in `judge`.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from durably.crashtest.compare import agreement, varying
from durably.crashtest.facts import Facts
from durably.crashtest.grounds import Grounds, Setup, SqliteGrounds
from durably.crashtest.job import Job, Role
from durably.crashtest.judge import Finding, judge, report_calls
from durably.crashtest.probe import Counts, Probe, grown, judge_probe
from durably.crashtest.processes import Processes, last_words
from durably.crashtest.report import CrashReport, Report
from durably.crashtest.strikes import Strike, chosen, matcher
from durably.crashtest.warm import TIMED_OUT
from durably.errors import ConfigError, RunFailed

type Progress = Callable[[str, int, int], None]
"""Told what is done now, and the how-manieth of how many it is."""

KILLED = -9


class NotRecorded(RunFailed):
    """The run did not complete where nothing had happened to it, so there is nothing to crash."""


@dataclass(frozen=True)
class Experiment:
    """What is to be done.

    Attributes:
        app: the application, ``module:attribute``.
        module: the program of the warm process (see `Processes`).
        scripted: whether no provider is asked, as far as can be seen.
        database: where ledgers are made; None: in temporary SQLite files.
        at: patterns of boundaries; empty: all that the run reaches.
        at_most: how many crashes; None: all.
        seconds: how long each process may take.
    """

    app: str
    module: str
    agent: str
    prompt: str
    args: dict[str, Any] | None = None
    scripted: bool = False
    approve: bool = True
    answers: tuple[Any, ...] = ()
    signals: dict[str, Any] = field(default_factory=dict[str, Any])
    database: str | None = None
    setup: Setup | None = None
    probe: Probe | None = None
    at: Sequence[str] = ()
    at_most: int | None = None
    seed: int = 0
    seconds: float = 300.0


def run_experiment(experiment: Experiment, progress: Progress) -> Report:
    """Do it all; leaves nothing behind.

    Raises:
        NotRecorded: the run does not complete undisturbed, or goes another way each time.
        ConfigError: an option cannot work with what the run does.
        LedgerError: the database cannot be used.
    """
    matcher(experiment.at)  # Refuses what means nothing, before anything is run.
    folder = Path(tempfile.mkdtemp(prefix="durably-crashtest-"))
    try:
        with Processes(experiment.module, experiment.app, folder) as processes:
            laboratory = Laboratory(experiment, processes, folder, progress)
            return laboratory.work()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Laboratory:
    """Carries out one experiment."""

    def __init__(
        self, experiment: Experiment, processes: Processes, folder: Path, progress: Progress
    ) -> None:
        self._experiment = experiment
        self._processes = processes
        self._folder = folder
        self._progress = progress
        self._nonce = uuid.uuid4().hex[:8]
        self._grounds = self._make_grounds()
        self._runs = 0

    def work(self) -> Report:
        asked = self._experiment
        self._progress("recording", 0, 0)
        recorded, first_growth = self._undisturbed("record")
        self._progress("rehearsing", 0, 0)
        usual, growth = self._undisturbed("rehearse")
        by_itself = varying(recorded, usual)
        self._check_steady(recorded, usual)
        if asked.probe is not None and growth != first_growth:
            raise ConfigError(
                f"--probe {asked.probe.name} grew by {first_growth} while the run was recorded, "
                f"and by {growth} when it was played again with nothing killed: let it count only "
                "what this agent's tools do."
            )
        strikes = chosen(usual.reached, asked.at, asked.at_most, asked.seed)
        report = Report(
            app=asked.app,
            agent=asked.agent,
            database=self._grounds.dialect,
            seed=asked.seed,
            scripted=asked.scripted,
            forked=self._processes.forks,
            boundaries=len(usual.reached),
            requests=len(usual.asked),
            output=usual.main.output,
            varies=sorted({".".join(map(str, path)) for path in by_itself}),
            probe=growth,
        )
        for number, strike in enumerate(strikes, 1):
            self._progress(f"killed at {strike}", number, len(strikes))
            report.crashes.append(self._crash(strike, usual, growth, by_itself))
        return report

    # --- undisturbed

    def _undisturbed(self, role: Role) -> tuple[Facts, Counts | None]:
        """A run that nothing happens to, and by how much the probe's counts grew.

        Raises:
            NotRecorded, ConfigError: it did not complete; the message says why.
        """
        before = self._probe()
        with self._run() as job:
            job = replace(job, role=role, pattern=str(self._folder / "record"))
            if role == "record":
                job = replace(job, pattern=None)
            facts = self._done(job)
            if role == "record":
                shutil.copytree(job.folder, self._folder / "record")
        after = self._probe()
        return facts, None if before is None or after is None else grown(before, after)

    def _done(self, job: Job) -> Facts:
        code = self._processes.run(job, self._experiment.seconds)
        if code == TIMED_OUT:
            raise NotRecorded(
                job.key,
                f"The run did not end in {self._experiment.seconds:g} s although nothing happened "
                "to it: give it more with --timeout.",
            )
        if code != 0 or not job.result.exists():
            raise NotRecorded(
                job.key, f"The run's process ended by itself ({code}): {last_words(job)}"
            )
        facts = Facts.of(Path(job.folder), job.role)
        self._check_completed(job, facts)
        return facts

    def _check_completed(self, job: Job, facts: Facts) -> None:
        if facts.forbidden is not None:
            raise ConfigError(
                f"Tool {facts.forbidden!r} runs an agent by itself that asks a real model, and its "
                "answers cannot be recorded: run that agent with durably.run_child, or give it a "
                "scripted model (TestModel, FunctionModel) here."
            )
        if facts.stuck is not None:
            raise ConfigError(facts.stuck)
        end = facts.main
        if end.state != "completed":
            why = end.error or last_words(job)
            raise NotRecorded(
                job.key, f"The run is {end.state} although nothing happened to it: {why}"
            )

    def _check_steady(self, recorded: Facts, usual: Facts) -> None:
        """Refuse a run whose replay goes another way although nothing happened to it."""
        if _lengths(recorded) != _lengths(usual):
            raise NotRecorded(
                recorded.main.run,
                "Played again, with the same responses and nothing killed, the run went another "
                "way: its tools answer differently each time, so a crash could not be told from "
                "that. Let them answer alike, or give them their data with --args.",
            )

    # --- crashed

    def _crash(
        self,
        strike: Strike,
        usual: Facts,
        growth: Counts | None,
        by_itself: frozenset[tuple[str | int, ...]],
    ) -> CrashReport:
        before = self._probe()
        with self._run() as job:
            job = replace(job, pattern=str(self._folder / "record"), strike=strike)
            code = self._processes.run(job, self._experiment.seconds)
            if code == 0 and job.result.exists():
                return _not_struck(strike, usual, Facts.of(Path(job.folder), job.role))
            if code == KILLED:
                job = replace(job, role="finish", strike=None)
                code = self._processes.run(job, self._experiment.seconds)
            if code != 0 or not job.result.exists():
                return self._lost(strike, job, code)
            facts = Facts.of(Path(job.folder), job.role)
        after = self._probe()
        agreed = agreement(usual, facts, by_itself)
        calls = report_calls(usual, facts)
        findings = judge(usual, facts, strike, agreed)
        grew = None if before is None or after is None else grown(before, after)
        if grew is not None and growth is not None:
            findings += judge_probe(growth, grew, calls, strike)
        return CrashReport(
            at=strike,
            killed=True,
            state=facts.main.state,
            calls=calls,
            requests_repeated=len(facts.asked) - len(usual.asked),
            agreed=agreed,
            probe=grew,
            findings=findings,
        )

    def _lost(self, strike: Strike, job: Job, code: int | str) -> CrashReport:
        how = (
            f"was not done after {self._experiment.seconds:g} s"
            if code == TIMED_OUT
            else f"ended with {code}"
        )
        who = "The process that took over" if job.role == "finish" else "The first process"
        text = f"{who} {how}: {last_words(job)}"
        return CrashReport(strike, True, None, [], 0, None, None, [Finding("lost", strike, text)])

    # --- inside

    @contextmanager
    def _run(self) -> Generator[Job]:
        """The job of a new run, with a ledger and a folder, which are gone after it."""
        asked = self._experiment
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        folder.mkdir()
        with self._grounds.ledger(folder, self._runs) as url:
            yield Job(
                role="crash",
                folder=str(folder),
                tape=str(self._folder / "tape.jsonl"),
                url=url,
                # Another one each time: services outside know the key's runs apart by it.
                key=f"crashtest-{self._nonce}-{self._runs:05}",
                agent=asked.agent,
                prompt=asked.prompt,
                args=asked.args,
                approve=asked.approve,
                answers=asked.answers,
                signals=asked.signals,
            )
        shutil.rmtree(folder)

    def _probe(self) -> Counts | None:
        return None if self._experiment.probe is None else self._experiment.probe()

    def _make_grounds(self) -> Grounds:
        asked = self._experiment
        if asked.database is None:
            return SqliteGrounds(self._folder, asked.setup)
        from durably.crashtest.postgres import PostgresGrounds

        return PostgresGrounds(asked.database, self._nonce, asked.setup)


def _not_struck(strike: Strike, usual: Facts, facts: Facts) -> CrashReport:
    """The run ended before it came there: some commits are shared by more writes than others."""
    state, findings = facts.main.state, list[Finding]()
    if facts.stuck is not None or state != usual.main.state:
        why = facts.stuck or f"The run is {state}, although nothing was killed."
        findings = [Finding("lost", strike, why)]
    return CrashReport(strike, False, state, [], 0, None, None, findings)


def _lengths(facts: Facts) -> dict[str, int]:
    """How many messages each run has."""
    return {key: len(run.messages) for key, run in facts.runs.items()}
