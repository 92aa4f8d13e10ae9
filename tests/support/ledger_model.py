"""The ledger as plain Python: what the promises say should be there after each operation.

A second, independent statement of the rules; nothing here knows SQL or imports the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

FINAL = {"completed", "discarded", "cancelled"}
SETTLED = {"done", "failed", "denied"}

type Position = tuple[int, int]


class Refused(Exception):
    """The promises do not allow this."""


@dataclass
class ModelEffect:
    state: str
    attempt: int
    asked: bool = False
    result: str | None = None
    by: str | None = None

    @property
    def settled(self) -> bool:
        return self.state in SETTLED


@dataclass
class ModelRun:
    id: int
    key: str
    priority: int
    max_attempts: int
    state: str
    due: datetime
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    worker: str | None = None
    waiting: str | None = None
    cancelling: bool = False
    messages: list[str] = field(default_factory=list)
    effects: dict[Position, ModelEffect] = field(default_factory=dict)
    ends: list[str | None] = field(default_factory=list)
    """How each attempt ended; None for the one under way."""
    evidence: dict[tuple[int, Position], bool] = field(default_factory=dict)
    """What became of an attempt's evidence when it was first told."""

    @property
    def asked(self) -> bool:
        return any(e.asked and not e.settled for e in self.effects.values())


class Model:
    """Runs, attempts, workers and leases, effects."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.runs: dict[str, ModelRun] = {}
        self.leases: dict[str, datetime] = {}

    # --- enqueue, claim

    def enqueue(self, key: str, priority: int, max_attempts: int, delay: float) -> bool:
        if key in self.runs:
            return False
        due = self.now + timedelta(seconds=delay)
        state = "scheduled" if due > self.now else "available"
        run = ModelRun(len(self.runs) + 1, key, priority, max_attempts, state, due)
        self.runs[key] = run
        return True

    def claimable(self) -> list[ModelRun]:
        """In the order in which workers get them."""
        due = [
            run
            for run in self.runs.values()
            if run.state == "available"
            or (run.state in ("scheduled", "retryable") and run.due <= self.now)
        ]
        return sorted(due, key=lambda run: (run.priority, run.due, run.id))

    def claim(self, run: ModelRun, worker: str) -> None:
        run.state, run.worker = "executing", worker
        run.attempt += 1
        run.ends.append(None)

    # --- an attempt's writes

    def fence(self, run: ModelRun, attempt: int) -> None:
        if run.state != "executing" or run.attempt != attempt:
            raise Refused

    def step(self, run: ModelRun, attempt: int, body: str) -> None:
        self.fence(run, attempt)
        run.messages.append(body)

    def intent(self, run: ModelRun, attempt: int, position: Position) -> None:
        self.fence(run, attempt)
        known = run.effects.get(position)
        if known is None or known.state == "in_doubt":
            run.effects[position] = ModelEffect("started", attempt)

    def outcome(
        self,
        run: ModelRun,
        attempt: int,
        position: Position,
        state: str,
        result: str | None,
        asked: bool,
    ) -> None:
        self.fence(run, attempt)
        known = run.effects.get(position)
        if known is None:
            known = run.effects[position] = ModelEffect("started", attempt)
        if not known.settled:
            known.state, known.asked, known.result = state, asked, result

    def withdraw(self, run: ModelRun, attempt: int, position: Position) -> None:
        self.fence(run, attempt)
        effect = run.effects.get(position)
        if effect is None or effect.state != "started" or effect.attempt != attempt:
            raise Refused
        del run.effects[position]

    def end(self, run: ModelRun, attempt: int, how: str) -> None:
        """Settle an attempt: complete, fail, discard, suspend …"""
        self.fence(run, attempt)
        self._over(run, how)
        match how:
            case "completed" | "cancelled":
                run.state = how
            case "discarded":
                run.state = "discarded"
                run.failures += 1
            case "failed":
                run.failures += 1
                run.state = "discarded" if run.failures >= run.max_attempts else "retryable"
                run.due = self.now + timedelta(seconds=5)
            case "handed_back":
                run.state = "available"
            case "suspended":
                run.state, run.waiting = "suspended", "effects"
            case _:
                raise AssertionError(how)
        if run.cancelling and how in ("failed", "handed_back", "suspended"):
            run.state, run.waiting = "cancelled", None
        self._wake_if_settled(run)

    # --- everybody else's

    def late(self, run: ModelRun, attempt: int, position: Position, result: str) -> None:
        effect = run.effects.get(position)
        open_states = ("started", "in_doubt")
        news = effect is not None and effect.attempt == attempt and effect.state in open_states
        # Told twice: nobody heard whether the first was committed. It is answered as then.
        known = run.evidence.setdefault((attempt, position), news)
        if not news and known:
            return
        if effect is None or not news:
            raise Refused
        effect.state, effect.asked, effect.result = "done", False, result
        effect.by = "late evidence"
        self._wake_if_settled(run)

    def resolve(self, run: ModelRun, position: Position, state: str | None, result: str) -> None:
        effect = run.effects.get(position)
        if run.state in FINAL or effect is None or effect.state not in ("in_doubt", "awaiting"):
            raise Refused
        if state is None and effect.state == "awaiting":
            raise Refused  # It never ran: there is no "again".
        if state is None:
            del run.effects[position]
        else:
            effect.state, effect.asked, effect.result, effect.by = state, False, result, "ann"
        self._wake_if_settled(run)

    def cancel(self, run: ModelRun) -> None:
        if run.state in FINAL:
            raise Refused
        run.cancelling = True
        if run.state != "executing":
            run.state, run.waiting = "cancelled", None

    def wake(self, run: ModelRun) -> None:
        if run.state != "suspended":
            raise Refused
        self._wake(run)

    def revive(self, run: ModelRun) -> None:
        if run.state not in ("discarded", "cancelled"):
            raise Refused
        run.state, run.due, run.cancelling = "available", self.now, False
        run.failures = run.crashes = 0

    def heartbeat(self, worker: str, seconds: float) -> None:
        self.leases[worker] = self.now + timedelta(seconds=seconds)

    def rescue(self) -> set[str]:
        rescued: set[str] = set()
        for run in self.runs.values():
            if run.state != "executing" or self.leases.get(run.worker or "", self.now) > self.now:
                continue
            self._over(run, "lost")
            run.crashes += 1
            limit = run.crashes >= run.max_attempts
            run.state = "cancelled" if run.cancelling else "discarded" if limit else "available"
            rescued.add(run.key)
        return rescued

    def _over(self, run: ModelRun, how: str) -> None:
        run.worker, run.ends[-1] = None, how
        for effect in run.effects.values():
            if effect.state == "started":
                effect.state = "in_doubt"

    def _wake_if_settled(self, run: ModelRun) -> None:
        if run.state == "suspended" and not run.asked:
            self._wake(run)

    def _wake(self, run: ModelRun) -> None:
        run.state, run.waiting = "available", None
