"""Traces of the model, taken again by the real ledger, and compared after each step.

Owns what a step of the model is in terms of `durably.ledger`, and how its rows are read as the
model has them; which traces are taken is the tests'.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field

from durably.errors import LeaseLost, TransitionRefused
from durably.ledger import attempts, decisions, evidence, reads, runs, steps
from durably.ledger.operations import Operation
from durably.ledger.written import Ask, CallOutcome, NewMessage, Step, ToolCall
from durably.lifecycle import EffectState
from durably.records import CallPosition, Claim, RunRecord
from protocol import ledger as model
from protocol.model import ONCE, Action, Size, State, kept
from protocol.model import steps as next_steps
from protocol.search import Explored
from support.ledgers import LEASE_SECONDS, Ledger

FAIL_SECONDS = 1.0
BY = {None: None, "late evidence": "late", "ann": "ann"}

TOOLS_TABLE = (
    "CREATE TABLE IF NOT EXISTS tool_writes (run_key TEXT NOT NULL, call INTEGER NOT NULL)"
)

OFF_THE_LEDGER = {
    "act",
    "calls are over",
    "check_before_acting",
    "crash",
    "cut short",
    "freeze",
    "grace is over",
    "heartbeat",
    "leave",
    "leave in doubt",
    "reconcile",
    "request",
    "retry",
    "see that it is lost",
    "see the cancel",
    "sigterm",
    "tool raises",
    "act unsaved",
}
"""Steps of the model that ask nothing of the ledger, and must change nothing in it."""


class Drift(AssertionError):
    """The real ledger does something else than the model."""


@dataclass
class Replay:
    """One run of the real ledger, led along a trace.

    Attributes:
        claims: of each attempt, also long after it is over.
    """

    ledger: Ledger
    size: Size
    key: str
    claims: dict[int, Claim] = field(default_factory=dict)

    async def begin(self) -> None:
        """Enqueue it."""
        limit = self.size.max_attempts
        self.run = await self.ledger.insert(self.key, max_attempts=limit)

    async def take(self, before: State, action: Action, after: State) -> None:
        """Take one step, and compare.

        Raises:
            Drift: the ledger answers otherwise than the model, or holds something else then.
        """
        refused = not await self.accepted(before, action)
        if refused != action.refused:
            raise Drift(f"{action}: the ledger {'refused' if refused else 'accepted'} it")
        found = await self.look()
        if found != comparable(after.ledger, found):
            raise Drift(f"{action}:\n  ledger {found}\n  model  {after.ledger}")

    async def accepted(self, before: State, action: Action) -> bool:
        """Do to the real ledger what the action does; False if it was refused."""
        if action.name in OFF_THE_LEDGER or action.fate == "cut off":
            return True
        try:
            return await self._do(before, action)
        except (LeaseLost, TransitionRefused):
            return False

    async def look(self) -> model.Ledger:
        """The run as the model would have it."""
        return await self.ledger.write(self._look)

    async def is_held_by(self, attempt: int) -> bool:
        """Whether the fence lets this attempt through."""
        try:
            await self.ledger.write(steps.find_outcome, self.claims[attempt], self._position(0))
        except LeaseLost:
            return False
        return True

    # --- each step

    async def _do(self, before: State, action: Action) -> bool:
        write, call = self.ledger.write, action.call
        match action.name:
            case "claim":
                return await self._claim(before, action.attempt)
            case "lease expires":
                self.ledger.clock.advance(LEASE_SECONDS + 1)
            case "rescue":
                return self.run.id in {run.id for run in await write(attempts.rescue)}
            case "cancel":
                await write(runs.cancel, self.key, "ann")
            case "revive":
                await write(runs.revive, self.key, "ann")
            case _ if call is not None and not action.attempt:
                await self._decide(action, self._position(call).call_id)
            case _ if call is not None:
                return await self._about_a_call(action, self.claims[action.attempt], call)
            case _:
                await self._step(before, action, self.claims[action.attempt])
        return True

    async def _claim(self, before: State, attempt: int) -> bool:
        if before.ledger.state == "retryable":
            self.ledger.clock.advance(FAIL_SECONDS)
        # Each process is another worker: nobody extends the lease of one that is gone.
        worker = await self.ledger.worker(f"{self.key}-{attempt}")
        claimed = await self.ledger.write(attempts.claim_one, worker, self.run.id)
        if claimed is None:
            return False
        self.claims[attempt] = claimed.claim
        return True

    async def _step(self, before: State, action: Action, claim: Claim) -> None:
        write, name = self.ledger.write, action.name
        process = next((p for p in before.processes if p.attempt == action.attempt), None)
        outcomes = () if process is None or action.how == "let go" else self._kept(kept(process))
        step = Step(outcomes=outcomes)
        match name:
            case "record_step":
                messages = ()
                if process is not None and action.how != "flush":
                    body = json.dumps(f"{action.attempt}: {process.response}")
                    messages = (NewMessage(process.response, "response", body),)
                await write(steps.record_step, claim, Step(messages=messages, outcomes=outcomes))
            case "complete":
                await write(attempts.complete, claim, '"x"', step)
            case "fail":
                await write(attempts.fail, claim, "e", "t", FAIL_SECONDS, step)
            case "suspend":
                await write(attempts.suspend, claim, "effects", {}, step)
            case "hand_back":
                await write(attempts.hand_back, claim, step)
            case "stop":
                await write(attempts.stop, claim, step)
            case _:
                raise AssertionError(f"nothing is known of {name}")

    async def _about_a_call(self, action: Action, claim: Claim, call: int) -> bool:
        write, tool = self.ledger.write, self._call(call)
        match action.name:
            case "record_intent":
                await write(steps.record_intent, claim, tool)
            case "record_outcome" if action.how == "in_doubt":
                await write(steps.record_outcome, claim, CallOutcome(tool, EffectState.IN_DOUBT))
            case "record_outcome":
                await write(steps.record_outcome, claim, self._done(call, action.how))
            case "record_doubt":
                told = '"told"' if action.how == "tell" else None
                doubt = CallOutcome(tool, EffectState.IN_DOUBT, told, asked=told is None)
                await write(steps.record_doubt, claim, doubt)
            case "find_outcome":
                await write(steps.find_outcome, claim, tool.position)
            case "commit":
                await self._commit(claim, call, f"a{action.attempt}")
            case "withdraw":
                return await write(evidence.withdraw_intent, claim, tool, "no") or await write(
                    evidence.withdraw_late, claim, tool, "no"
                )
            case "settle_late":
                late = self._done(call, f"a{action.attempt}")
                return await write(evidence.settle_late, claim, late) is not None
            case _:
                raise AssertionError(f"nothing is known of {action.name}")
        return True

    async def _commit(self, claim: Claim, call: int, result: str) -> None:
        """As a transactional tool does: it writes, and its result is recorded in one commit."""
        transaction = self.ledger.database.transaction()
        try:
            connection = await transaction.begin_async()
            wrote = connection.execute(
                f"INSERT INTO tool_writes (run_key, call) VALUES ('{self.key}', {call})"
            )
            if isinstance(wrote, Awaitable):
                await wrote
            await transaction.commit(steps.record_outcome(claim, self._done(call, result)))
        finally:
            await transaction.close()

    async def _decide(self, action: Action, call_id: str) -> None:
        write, key = self.ledger.write, self.key
        match action.name, action.how:
            case "approve", _:
                await write(decisions.approve, key, call_id, None, None, "ann", "")
            case "deny", _:
                denied = (EffectState.DENIED, '"person"', None)
                await write(decisions.decide, key, call_id, "denied", *denied, "ann", "")
            case "resolve", "again":
                await write(decisions.resolve, key, call_id, None, None, None, "ann", "")
            case _:
                done = (EffectState.DONE, '"person"', None)
                await write(decisions.resolve, key, call_id, *done, "ann", "")

    # --- the words of one for the other

    def _position(self, call: int) -> CallPosition:
        for response in range(len(self.size.responses)):
            if call in (calls := self.size.calls_of(response)):
                return CallPosition(response, call - calls.start)
        raise AssertionError(f"no response asks for call {call}")

    def _call(self, call: int) -> ToolCall:
        policy = self.size.policies[call]
        kind = "once" if policy in ONCE else policy
        return ToolCall(self._position(call), "t", f"c{call}", "{}", kind, None, f"k{call}")

    def _done(self, call: int, result: str) -> CallOutcome:
        return CallOutcome(self._call(call), EffectState.DONE, json.dumps(result))

    def _kept(self, outcomes: Iterable[model.Outcome]) -> tuple[CallOutcome, ...]:
        return tuple(
            CallOutcome(
                self._call(o.call),
                EffectState(o.state),
                None if o.result is None else json.dumps(o.result),
                asked=o.asks,
                ask=Ask("approval") if o.asks else None,
            )
            for o in outcomes
        )

    def _look(self) -> Operation[model.Ledger]:
        run: RunRecord = yield from reads.get_run(self.key)
        messages = yield from reads.list_messages(run.id)
        attempts = yield from reads.list_attempts(run.id)
        rows = {e.position: e for e in (yield from reads.list_effects(run.id))}
        effects: list[model.Effect | None] = []
        for call in range(len(self.size.policies)):
            row = rows.get(self._position(call))
            effects.append(
                row
                and model.Effect(
                    str(row.state),
                    row.attempt,
                    row.asked,
                    row.approved,
                    None if row.result is None else json.loads(row.result),
                    BY[row.resolved_by],
                )
            )
        return model.Ledger(
            str(run.state),
            run.attempt,
            run.failures,
            run.crashes,
            run.cancel_requested_at is not None,
            tuple(int(json.loads(m.body).split(": ")[1]) for m in messages),
            tuple(effects),
            tuple(None if a.outcome is None else str(a.outcome) for a in attempts),
            "",
            self._writes(),
        )

    def _writes(self) -> tuple[int, ...]:
        if "transactional" not in self.size.policies:
            return (0,) * len(self.size.policies)
        asked = f"SELECT call, count(*) FROM tool_writes WHERE run_key = '{self.key}' GROUP BY call"
        found = dict(self.ledger.backend.select(asked))
        return tuple(found.get(call, 0) for call in range(len(self.size.policies)))


def comparable(expected: model.Ledger, found: model.Ledger) -> model.Ledger:
    """Without what is not in the run's rows, and what the model has forgotten."""
    ends = tuple(
        now if was == "over" else was for was, now in zip(expected.ends, found.ends, strict=False)
    )
    return expected._replace(lease="", ends=ends)


def follow(size: Size, trace: Iterable[Action], first: State) -> list[tuple[State, Action, State]]:
    """A trace with the states between its steps."""
    way: list[tuple[State, Action, State]] = []
    state = first
    for action in trace:
        after = next(after for found, after in next_steps(size, state) if found == action)
        way.append((state, action, after))
        state = after
    return way


class Cover:
    """Traces that take each kind of step at least once, from each kind of situation.

    A kind is what can be told apart in the ledger's rows: which step, whether it was refused or
    heard of, and how the run, its attempt, and the call stood.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[object, ...], tuple[State, Action]] = {}

    def seen(self, state: State, action: Action, after: State) -> None:
        """Remember the first step of its kind."""
        if action.name not in OFF_THE_LEDGER:
            self._first.setdefault(_kind(state, action), (state, action))

    def traces(self, explored: Explored) -> list[list[Action]]:
        """The longest first; none that shows nothing new."""
        ways = [[*explored.trace(s), action] for s, action in self._first.values()]
        left = set(self._first)
        chosen: list[list[Action]] = []
        for way in sorted(ways, key=len, reverse=True):
            kinds = {_kind(s, a) for s, a, _ in follow(explored.size, way, explored.first)}
            if kinds & left:
                chosen.append(way)
                left -= kinds
        return chosen


def _kind(state: State, action: Action) -> tuple[object, ...]:
    run = state.ledger
    stands: object = None
    if action.call is not None and (effect := run.effects[action.call]) is not None:
        mine = effect.attempt == action.attempt
        stands = (effect.state, mine, effect.asked, effect.approved, effect.result is None)
    else:
        stands = run.asks()
    fence = (run.holds(action.attempt), run.state, run.cancelling)
    return (action.name, action.how, action.fate, action.refused, fence, stands)
