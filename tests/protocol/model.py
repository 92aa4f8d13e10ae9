"""The model: attempts, each a process with a memory, around one run's ledger, and their troubles.

Owns every step that may be taken from a state, named as in the code; what the ledger does is
`ledger`'s, what must hold is `promises`'. Time is order: a frozen process just takes no step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from protocol import ledger as do
from protocol.ledger import FINAL, Ledger, Outcome, Rules, new_ledger

APPROVED = ("approved", "approved tell")
ONCE = ("ask", "tell", "retry", "reconcile", *APPROVED)
"""Policies that record an intent: ``once`` with its ``on_doubt``, `reconcile`, or approved."""

POLICIES = (*ONCE, "read", "idempotent", "transactional")


KINDS = frozenset(("crash", "freeze", "lost answer", "tool raises", "sigterm", "cancel"))
"""What may befall a run."""


@dataclass(frozen=True)
class Size:
    """How large a world is searched.

    Attributes:
        responses: for each response that asks for calls, their policies; a last one asks for none.
        faults: how many crashes, freezes, lost answers, raising tools, cancels … there may be.
        kinds: which of them.
        processes: how many attempts may be under way at a time, one of them not known to be over.
        max_attempts: how many failures, or crashes, end the run.
    """

    responses: tuple[tuple[str, ...], ...]
    faults: int = 2
    processes: int = 2
    max_attempts: int = 2
    kinds: frozenset[str] = KINDS
    rules: Rules = field(default_factory=Rules)

    @cached_property
    def policies(self) -> tuple[str, ...]:
        """The policy of each call, over all responses."""
        return tuple(policy for calls in self.responses for policy in calls)

    def calls_of(self, response: int) -> range:
        """The calls that a response asks for; none after the last."""
        if response >= len(self.responses):
            return range(0)
        start = sum(map(len, self.responses[:response]))
        return range(start, start + len(self.responses[response]))


class Process(NamedTuple):
    """An attempt, as its own process knows it.

    Attributes:
        phase: ``ready`` for a step, ``answered`` by the model and not saved, ``calling``,
            ``ending`` (about to write ``end``), ``lost``.
        response: the last response it knows of; -1: none.
        calls: how far each call is (see `_calls_from`).
        lapsed: its own clock says that its lease has not held all the time.
        unsure: nobody answered the write that ends it: it may have been committed.
        let_go: it has tried to hand back the run that it lost.
        doubted: calls that it repeats although an earlier try may have happened.
    """

    attempt: int
    phase: str
    response: int
    calls: tuple[str, ...]
    end: str = ""
    lapsed: bool = False
    leaving: bool = False
    unsure: bool = False
    let_go: bool = False
    doubted: tuple[int, ...] = ()


class Call(NamedTuple):
    """What really happened to a call: the outside world's record, which nobody in the model reads
    but people, and `reconcile`.

    Attributes:
        acts: how often the tool acted.
        allowed: how often it may have: once, and once more for each word that it did not happen.
        overtaken: it acted after its attempt was over, which had been going when the tool began.
        unheard: whoever knew what became of it is gone: it crashed, or the tool raised.
        repeated: the current attempt acted though the ledger had the outcome.
        unleased: it began after its attempt was over.
    """

    acts: int = 0
    allowed: int = 1
    overtaken: bool = False
    unheard: bool = False
    repeated: bool = False
    unleased: bool = False


class State(NamedTuple):
    ledger: Ledger
    processes: tuple[Process, ...]
    calls: tuple[Call, ...]
    requests: int
    faults: int


class Action(NamedTuple):
    """One step: which operation, by which attempt (0: somebody else), about which call.

    Attributes:
        fate: ``unanswered``: committed, and nobody heard; ``cut off``: not committed, and unknown.
        refused: the ledger said no.
        how: what the operation was told.
    """

    name: str
    attempt: int = 0
    call: int | None = None
    how: str = ""
    fate: str = ""
    refused: bool = False

    def __str__(self) -> str:
        who = f"attempt {self.attempt}: " if self.attempt else ""
        about = "" if self.call is None else f" of call {self.call}"
        said = [w for w in (self.how, self.fate, "refused" if self.refused else "") if w]
        return f"{who}{self.name}{about}" + (f" ({', '.join(said)})" if said else "")

    @property
    def is_fault(self) -> bool:
        return bool(self.fate) or self.name in FAULTS


FAULTS = {"crash", "freeze", "tool raises", "sigterm", "cancel", "revive"}
"""Steps that need not happen, as a commit whose answer is lost; each costs one of `faults`."""

PEOPLE = {"approve", "deny", "resolve"}
"""Steps that a run may wait for, and that nobody may rely on."""

BEGUN = ("intended", "acting", "acted")
"""How far a call is that has to be seen to before its process can go."""

type Steps = Iterator[tuple[Action, State]]

type Then = Callable[[State], State]


def start(size: Size) -> State:
    """A run that was just enqueued."""
    calls = len(size.policies)
    return State(new_ledger(calls), (), (Call(),) * calls, 0, size.faults)


def steps(size: Size, state: State) -> Steps:
    """Everything that may happen next."""
    for action, after in _steps(size, state):
        yield action, _without_what_is_over(size, after)


def _without_what_is_over(size: Size, state: State) -> State:
    """Forget what no step can depend on any more, so that states that differ in nothing are one."""
    processes: list[Process] = []
    for process in state.processes:
        if process.phase == "lost":
            begun = [size.policies[c] in ONCE and p in BEGUN for c, p in enumerate(process.calls)]
            calls = tuple(p if b else "" for p, b in zip(process.calls, begun, strict=True))
            doubted = tuple(c for c in process.doubted if begun[c])
            if process.let_go and not any(calls):
                continue  # It is gone.
            let_go = process.let_go
            process = Process(
                process.attempt, "lost", -1, calls, lapsed=True, let_go=let_go, doubted=doubted
            )
        elif process.phase == "ending":
            left = (*BEGUN, "kept", "ask") if not process.unsure else ()
            calls = tuple(p if p in left else "" for p in process.calls)
            process = process._replace(response=-1, calls=calls, leaving=False)
        processes.append(process)
    there = {process.attempt for process in processes}
    ledger = state.ledger
    ends = tuple(
        end if end is None or attempt in there else "over"
        for attempt, end in enumerate(ledger.ends, 1)
    )
    return state._replace(ledger=ledger._replace(ends=ends), processes=tuple(processes))


def _steps(size: Size, state: State) -> Steps:
    yield from _ledger_keepers(size, state)
    yield from _people(size, state)
    for index, process in enumerate(state.processes):
        one = _One(size, state, index, process)
        yield from one.befalls()
        match process.phase:
            case "ready":
                yield from one.take_step()
            case "answered":
                yield from one.checkpoint()
            case "calling":
                yield from one.work_on_calls()
            case "ending":
                yield from one.wind_up()
            case _:
                yield from one.leave_what_is_lost()
                continue
        yield from one.flush()


# --- everybody but the attempts


def _ledger_keepers(size: Size, state: State) -> Steps:
    """Workers that claim and rescue, and time."""
    ledger, rules = state.ledger, size.rules
    if len(state.processes) < size.processes and (claimed := do.claim(ledger)) is not None:
        process = _claimed(size, claimed)
        begun = state._replace(ledger=claimed, processes=(*state.processes, process))
        yield Action("claim", claimed.attempt), begun
        if state.faults and "lost answer" in size.kinds:
            fate = state._replace(ledger=claimed, faults=state.faults - 1)
            yield Action("claim", claimed.attempt, fate="unanswered"), fate
    nobody = not any(p.attempt == ledger.attempt for p in state.processes)
    if ledger.state == "executing" and ledger.lease == "kept" and nobody:
        if rules.strays_handed_back:
            # Its worker lives, holds it, and has no attempt: it never heard that it claimed.
            back = do.settle(rules, ledger, ledger.attempt, "hand_back", (), size.max_attempts)
            assert back is not None
            yield Action("hand_back", ledger.attempt, how="stray"), state._replace(ledger=back)
        if state.faults and "crash" in size.kinds:
            dying = state._replace(ledger=ledger._replace(lease="dying"), faults=state.faults - 1)
            yield Action("crash", ledger.attempt, how="stray"), dying
    if ledger.state == "executing" and ledger.lease == "dying":
        yield Action("lease expires"), state._replace(ledger=ledger._replace(lease="over"))
    if (rescued := do.rescue(rules, ledger, size.max_attempts)) is not None:
        yield Action("rescue"), state._replace(ledger=rescued)


def _people(size: Size, state: State) -> Steps:
    """They look before they answer, and say what they see."""
    ledger, rules = state.ledger, size.rules
    for call in range(len(ledger.effects)):
        happened = state.calls[call].acts > 0
        resolved = do.resolve(rules, ledger, call, again=not happened)
        if resolved is not None:
            said = state if happened else _allow_once_more(state, call)
            how = "it happened" if happened else "again"
            yield Action("resolve", 0, call, how), said._replace(ledger=resolved)
        for name, approve in (("approve", True), ("deny", False)):
            if (decided := do.decide(ledger, call, approve=approve)) is not None:
                yield Action(name, 0, call), state._replace(ledger=decided)
    if state.faults and "cancel" in size.kinds:
        for name, operation in (("cancel", do.cancel), ("revive", do.revive)):
            changed = operation(ledger)
            if changed is not None and changed != ledger:
                yield Action(name), state._replace(ledger=changed, faults=state.faults - 1)


def _claimed(size: Size, ledger: Ledger) -> Process:
    """What an attempt begins with: the history, and the calls of its last response."""
    response = len(ledger.messages) - 1
    phase = "ready" if response < 0 else "calling"
    return Process(ledger.attempt, phase, response, _calls_from(size, ledger, response))


def _calls_from(size: Size, ledger: Ledger, response: int) -> tuple[str, ...]:
    """How far each call of a response is, by what an attempt reads of it.

    ``todo``, ``intended``, ``acting``, ``acted``; ``doubt``, ``raised``: may have happened;
    ``reconciled``, ``unfound``: an outcome to be written, or looked up; ``kept``, ``ask``: rides
    along with the next write; ``asked``, ``answered``, ``dropped``: nothing left to do.
    """
    progress: list[str] = []
    for call, policy in enumerate(size.policies):
        effect = ledger.effects[call]
        if call not in size.calls_of(response):
            progress.append("answered")
        elif effect is None:
            progress.append("ask" if policy in APPROVED else "todo")
        elif effect.settled or effect.told:
            progress.append("answered")
        elif effect.state == "awaiting":
            progress.append("todo" if effect.approved else "asked")
        else:
            progress.append("doubt")
    return tuple(progress)


def _allow_once_more(state: State, call: int) -> State:
    return _note(state, call, allowed=state.calls[call].allowed + 1)


def _note(state: State, call: int, **facts: int | bool) -> State:
    noted = state.calls[call]._replace(**facts)
    return state._replace(calls=(*state.calls[:call], noted, *state.calls[call + 1 :]))


# --- one attempt


@dataclass
class _One:
    """One process in one state: the steps that it may take."""

    size: Size
    state: State
    index: int
    process: Process

    def __post_init__(self) -> None:
        self.rules = self.size.rules
        self.ledger = self.state.ledger
        self.attempt = self.process.attempt
        self.limit = self.size.max_attempts

    # --- what befalls it

    def befalls(self) -> Steps:
        """Crash, freeze and SIGTERM; the loss of its run, and a cancel, that it comes to see."""
        process, ledger = self.process, self.ledger
        current = ledger.holds(self.attempt)
        dying = ledger._replace(lease="dying") if current and ledger.lease == "kept" else ledger
        if self._may("crash"):
            gone = self._gone(self._spent(ledger=dying))
            for call, progress in enumerate(process.calls):
                if progress in BEGUN:
                    gone = _note(gone, call, unheard=True)
            yield Action("crash", self.attempt), gone
        if self._may("freeze") and current and not process.lapsed:
            yield Action("freeze", self.attempt), self._now(self._spent(ledger=dying), lapsed=True)
        if self._may("sigterm") and not process.leaving and process.phase != "lost":
            yield Action("sigterm", self.attempt), self._now(self._spent(), leaving=True)
        if process.phase == "lost":
            return
        if process.lapsed and not self.rules.lapse_is_for_good:
            alive = ledger._replace(lease="kept") if current else ledger
            beaten = self.state._replace(ledger=alive)
            yield Action("heartbeat", self.attempt), self._now(beaten, lapsed=False)
        if (process.lapsed or not current) and not process.unsure:
            yield Action("see that it is lost", self.attempt), self._lose()
        begun = process.phase in ("ready", "answered", "calling")
        if begun and ledger.cancelling and current:
            yield Action("see the cancel", self.attempt), self._end("stop")
        if process.phase == "calling" and process.leaving:
            yield Action("grace is over", self.attempt), self._end("hand_back")

    # --- steps: check_before_step, request, checkpoint

    def take_step(self) -> Steps:
        process, state = self.process, self.state
        if process.lapsed:
            return  # It sees that it is lost.
        if process.leaving:
            yield Action("leave", self.attempt), self._end("hand_back")
        asked = state._replace(requests=state.requests + 1)
        if self._may("tool raises"):
            failed = self._end("fail", asked._replace(faults=state.faults - 1))
            yield Action("tool raises", self.attempt, how="request"), failed
        answered = self._now(asked, phase="answered", response=process.response + 1)
        yield Action("request", self.attempt, how=f"response {process.response + 1}"), answered
        if not self.rules.save_first:
            yield Action("act unsaved", self.attempt), self._begin_calls(answered)

    def checkpoint(self) -> Steps:
        response, outcomes = self.process.response, kept(self.process)
        written = do.record_step(self.rules, self.ledger, self.attempt, response, outcomes)
        yield from self._write(
            Action("record_step", self.attempt, how=f"response {response}"),
            written,
            lambda state: self._begin_calls(state),
        )

    def _begin_calls(self, state: State) -> State:
        calls = _calls_from(self.size, state.ledger, self.process.response)
        return _replace_process(state, self.index, phase="calling", calls=calls)

    # --- calls: the policies

    def work_on_calls(self) -> Steps:
        calls = self.process.calls
        for call, progress in enumerate(calls):
            yield from self._work_on(call, progress)
        if all(p in ("answered", "kept", "ask", "asked") for p in calls):
            yield Action("calls are over", self.attempt), self._after_calls()

    def _after_calls(self) -> State:
        process = self.process
        if any(p in ("ask", "asked") for p in process.calls):
            return self._end("suspend")
        if process.response >= len(self.ledger.messages) and not self.rules.save_first:
            return self._now(phase="answered")
        if process.response >= len(self.size.responses):
            return self._end("complete")
        return self._now(phase="ready")

    def flush(self) -> Steps:
        """Results of idempotent tools are written soon, whatever else goes on."""
        calls = self.process.calls
        if not any(p == "kept" and self._is(c, "idempotent") for c, p in enumerate(calls)):
            return
        written = do.record_step(self.rules, self.ledger, self.attempt, None, kept(self.process))
        flushed = [c for c, p in enumerate(self.process.calls) if p == "kept"]
        yield from self._write(
            Action("record_step", self.attempt, how="flush"),
            written,
            lambda state: self._set_calls(state, flushed, "answered"),
        )

    def _work_on(self, call: int, progress: str) -> Steps:
        policy = self.size.policies[call]
        match progress:
            case "todo" if policy in ONCE and self.rules.intent_first:
                yield from self._record_intent(call)
            case "todo" | "intended":
                yield from self._check(call)
            case "acting":
                yield from self._act(call)
            case "acted" if policy == "transactional":
                yield from self._commit(call)
            case "acted":
                yield from self._record_outcome(call, Outcome(call, "done", f"a{self.attempt}"))
            case "raised":
                yield from self._record_outcome(call, Outcome(call, "in_doubt"), then="doubt")
            case "doubt":
                yield from self._settle_doubt(call, policy)
            case "reconciled":
                yield from self._record_outcome(call, Outcome(call, "done", "found"))
            case "unfound":
                yield from self._find_outcome(call)
            case _:
                return

    def _record_intent(self, call: int) -> Steps:
        written = do.record_intent(self.rules, self.ledger, self.attempt, call)

        def then(state: State) -> State:
            effect = state.ledger.effects[call]
            settled = effect is not None and effect.settled
            return self._set_calls(state, [call], "answered" if settled else "intended")

        yield from self._write(Action("record_intent", self.attempt, call), written, then)

    def _check(self, call: int) -> Steps:
        """`check_before_acting`, the last look; a freeze may fall between it and the act."""
        if self.process.lapsed and self.rules.check_before_acting:
            return  # It sees that it is lost.
        state = self._set_calls(self.state, [call], "acting")
        if not self.ledger.holds(self.attempt):
            state = _note(state, call, unleased=True)
        yield Action("check_before_acting", self.attempt, call), state

    def _act(self, call: int) -> Steps:
        acted = self._acted(call)
        if self._is(call, "read", "idempotent"):
            yield Action("act", self.attempt, call), self._set_calls(acted, [call], "kept")
        else:
            yield Action("act", self.attempt, call), self._set_calls(acted, [call], "acted")
        if not self._may("tool raises"):
            return
        faults = self.state.faults - 1
        if self._is(call, *ONCE):
            # One that proves that nothing was sent; and one that proves nothing.
            undone = self._set_calls(self.state._replace(faults=faults), [call], "intended")
            failed = _replace_process(undone, self.index, phase="ending", end="fail")
            yield Action("tool raises", self.attempt, call, "NotDone"), failed
            for how, state in (("before it acted", self.state), ("after it acted", acted)):
                state = _note(state._replace(faults=faults), call, unheard=True)
                raised = self._set_calls(state, [call], "raised")
                yield Action("tool raises", self.attempt, call, how), raised
        else:
            for how, state in (("before it acted", self.state), ("after it acted", acted)):
                dropped = self._set_calls(state._replace(faults=faults), [call], "dropped")
                failed = _replace_process(dropped, self.index, phase="ending", end="fail")
                yield Action("tool raises", self.attempt, call, how), failed

    def _acted(self, call: int) -> State:
        """The tool acts in the world; of a transactional one nothing is there until it commits."""
        known, effect = self.state.calls[call], self.ledger.effects[call]
        current = self.ledger.holds(self.attempt)
        repeated = known.repeated or (current and effect is not None and effect.settled)
        late = known.overtaken or (not current and not known.unleased)
        acts = min(known.acts + 1, known.allowed + 1)  # More than allowed is all that matters.
        if self._is(call, "read", "idempotent", "transactional"):
            acts = 1
        return _note(self.state, call, acts=acts, repeated=repeated, overtaken=late)

    def _record_outcome(self, call: int, outcome: Outcome, then: str = "answered") -> Steps:
        written = do.record_outcome(self.rules, self.ledger, self.attempt, outcome)

        def go_on(state: State) -> State:
            effect = state.ledger.effects[call]
            settled = effect is not None and effect.settled
            if not settled and then == "doubt" and self._is(call, "retry"):
                # This attempt fails; the next one repeats the call.
                failed = self._set_calls(state, [call], "dropped")
                return _replace_process(failed, self.index, phase="ending", end="fail")
            return self._set_calls(state, [call], "answered" if settled else then)

        how = outcome.result or outcome.state
        action = Action("record_outcome", self.attempt, call, how)
        yield from self._write(action, written, go_on)

    def _commit(self, call: int) -> Steps:
        """Writes and result in one transaction; of a commit that nobody answered, it looks."""
        if self.process.lapsed and self.rules.check_before_acting:
            return
        outcome = Outcome(call, "done", f"a{self.attempt}")
        written = do.record_outcome(
            self.rules, self.ledger, self.attempt, outcome, writes=self.rules.one_transaction
        )
        if written is not None and not self.rules.one_transaction:
            alone = do.record_outcome(self.rules, self.ledger, self.attempt, outcome, writes=True)
            assert alone is not None
            state = self.state._replace(ledger=alone._replace(effects=self.ledger.effects))
            yield (
                Action("commit", self.attempt, call, "writes alone"),
                self._set_calls(state, [call], "reconciled"),
            )
            return
        unheard = "unfound" if self.rules.find_outcome else "todo"
        yield from self._write(
            Action("commit", self.attempt, call),
            written,
            lambda state: self._set_calls(state, [call], "answered"),
            unanswered=lambda state: self._set_calls(state, [call], unheard),
        )

    def _find_outcome(self, call: int) -> Steps:
        held = self.ledger if self.ledger.holds(self.attempt) else None
        effect = self.ledger.effects[call]
        done = effect is not None and effect.settled

        def then(state: State) -> State:
            return self._set_calls(state, [call], "answered" if done else "todo")

        action = Action("find_outcome", self.attempt, call)
        if held is None:
            yield action._replace(refused=True), self._lose()
        else:
            yield action, then(self.state)

    def _settle_doubt(self, call: int, policy: str) -> Steps:
        if policy == "reconcile" and self.state.calls[call].acts:
            found = self._set_calls(self.state, [call], "reconciled")
            yield Action("reconcile", self.attempt, call, "it happened"), found
        elif policy in ("reconcile", "retry"):
            again = self._set_calls(_allow_once_more(self.state, call), [call], "todo")
            name = "reconcile" if policy == "reconcile" else "retry"
            if policy == "retry" and self.rules.doubt_outlives_a_repeat:
                doubted = tuple(sorted({*self.process.doubted, call}))
                again = _replace_process(again, self.index, doubted=doubted)
            yield Action(name, self.attempt, call, "again"), again
        else:
            tell = policy in ("tell", "approved tell")
            written = do.record_doubt(self.rules, self.ledger, self.attempt, call, tell=tell)

            def then(state: State) -> State:
                effect = state.ledger.effects[call]
                back = effect is not None and effect.state == "awaiting"
                if effect is None or (back and self.rules.withdrawn_runs_again):
                    return self._set_calls(state, [call], "todo")  # It was withdrawn meanwhile.
                answered = effect.settled or tell
                return self._set_calls(state, [call], "answered" if answered else "asked")

            action = Action("record_doubt", self.attempt, call, "tell" if tell else "ask")
            yield from self._write(action, written, then)

    # --- ends

    def wind_up(self) -> Steps:
        """Finish what has begun, then write how the attempt ends."""
        busy = False
        for call, progress in enumerate(self.process.calls):
            once = self._is(call, *ONCE)
            match progress:
                case "intended":
                    yield from self._withdraw(call)
                case "acting" if once:
                    acted = self._set_calls(self._acted(call), [call], "acted")
                    yield Action("act", self.attempt, call), acted
                    if self.process.end in ("stop", "hand_back"):
                        cut = _note(self.state, call, unheard=True)
                        yield (
                            Action("cut short", self.attempt, call),
                            self._set_calls(cut, [call], "dropped"),
                        )
                case "acted" if once:
                    outcome = Outcome(call, "done", f"a{self.attempt}")
                    yield from self._record_outcome(call, outcome)
                case _:
                    continue
            busy = True
        if not busy:
            yield from self._settle()

    def _withdraw(self, call: int) -> Steps:
        if call in self.process.doubted:
            # This try did not happen; an earlier one may have.
            left = self._set_calls(self.state, [call], "dropped")
            yield Action("leave in doubt", self.attempt, call), left
            return
        written = do.withdraw(self.rules, self.ledger, self.attempt, call)
        action = Action("withdraw", self.attempt, call, refused=written is None)
        state = self.state if written is None else self.state._replace(ledger=written)
        yield action, self._set_calls(state, [call], "dropped")
        if written is not None and self._may("lost answer"):
            lost = state._replace(faults=state.faults - 1)
            yield action._replace(fate="unanswered"), lost

    def _settle(self) -> Steps:
        process, how = self.process, self.process.end
        action = Action(how, self.attempt)
        written = do.settle(
            self.rules, self.ledger, self.attempt, how, kept(self.process), self.limit
        )
        ended = self.ledger.ends[self.attempt - 1]
        if written is None and process.unsure and ended == do.ENDS[how]:
            yield action._replace(how="was committed", refused=True), self._gone(self.state)
            return
        yield from self._write(
            action,
            written,
            self._gone,
            unanswered=lambda state: _replace_process(state, self.index, unsure=True),
        )

    def leave_what_is_lost(self) -> Steps:
        """Hand the run back in case that nobody has it; tools that began end, and say how."""
        process = self.process
        if not process.let_go:
            back = do.settle(self.rules, self.ledger, self.attempt, "hand_back", (), self.limit)
            state = self.state if back is None else self.state._replace(ledger=back)
            action = Action("hand_back", self.attempt, how="let go", refused=back is None)
            yield action, _replace_process(state, self.index, let_go=True)
        for call, progress in enumerate(process.calls):
            if not self._is(call, *ONCE) or progress not in BEGUN:
                continue
            if progress == "intended":
                yield from self._withdraw(call)
            elif progress == "acting":
                acted = self._set_calls(self._acted(call), [call], "acted")
                yield Action("act", self.attempt, call), acted
            else:
                yield from self._settle_late(call)

    def _settle_late(self, call: int) -> Steps:
        if not self.rules.late_evidence:
            yield (
                Action("forget", self.attempt, call),
                self._set_calls(self.state, [call], "dropped"),
            )
            return
        written = do.settle_late(self.rules, self.ledger, self.attempt, call)
        state = self.state if written is None else self.state._replace(ledger=written)
        action = Action("settle_late", self.attempt, call, refused=written is None)
        yield action, self._set_calls(state, [call], "dropped")
        if written is not None and self._may("lost answer"):
            yield action._replace(fate="unanswered"), state._replace(faults=state.faults - 1)

    # --- helpers

    def _write(
        self, action: Action, written: Ledger | None, then: Then, unanswered: Then | None = None
    ) -> Steps:
        """A fenced write: refused, committed, or one that the client never hears about.

        One that was not committed is made again, as if nothing had been; only `commit` has to look.
        """
        if written is None:
            yield action._replace(refused=True), self._lose()
            return
        state = self.state._replace(ledger=written)
        yield action, then(state)
        if self._may("lost answer"):
            unheard = unanswered or (lambda state: state)
            spent = state._replace(faults=state.faults - 1)
            yield action._replace(fate="unanswered"), unheard(spent)
            if action.name == "commit":
                cut = self.state._replace(faults=state.faults - 1)
                yield action._replace(fate="cut off"), unheard(cut)

    def _may(self, kind: str) -> bool:
        return self.state.faults > 0 and kind in self.size.kinds

    def _is(self, call: int, *policies: str) -> bool:
        return self.size.policies[call] in policies

    def _now(self, state: State | None = None, **changes: object) -> State:
        return _replace_process(state or self.state, self.index, **changes)

    def _end(self, how: str, state: State | None = None) -> State:
        return self._now(state, phase="ending", end=how)

    def _lose(self) -> State:
        return self._now(phase="lost")

    def _spent(self, **changes: object) -> State:
        return self.state._replace(faults=self.state.faults - 1, **changes)

    def _set_calls(self, state: State, calls: list[int], progress: str) -> State:
        known = state.processes[self.index].calls
        now = tuple(progress if c in calls else p for c, p in enumerate(known))
        return _replace_process(state, self.index, calls=now)

    def _gone(self, state: State) -> State:
        rest = (*state.processes[: self.index], *state.processes[self.index + 1 :])
        return state._replace(processes=rest)


def _replace_process(state: State, index: int, **changes: object) -> State:
    changed = state.processes[index]._replace(**changes)
    processes = (*state.processes[:index], changed, *state.processes[index + 1 :])
    return state._replace(processes=processes)


def kept(process: Process) -> list[Outcome]:
    """What rides along with an attempt's next write."""
    return [
        Outcome(call, "awaiting", asks=True)
        if progress == "ask"
        else Outcome(call, "done", f"a{process.attempt}")
        for call, progress in enumerate(process.calls)
        if progress == "kept" or (progress == "ask" and process.end == "suspend")
    ]


def is_good(state: State) -> bool:
    """A run that has come to an end, or says whom it waits for."""
    run = state.ledger
    return run.state in FINAL or (run.state == "suspended" and run.asks())
