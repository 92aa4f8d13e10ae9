"""A run's timeline: what happened when, put together of what the ledger recorded.

Pure; what responses say of themselves is given. One walk over everything: a long run is no slower
for each step than a short one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, zip_longest

from durably.lifecycle import AttemptOutcome, EffectState
from durably.records import (
    Answer,
    Attempt,
    CallPosition,
    Decision,
    Effect,
    RunRecord,
    Saved,
    Timeline,
    TimelineCall,
    TimelineStep,
    TimelineWait,
)


def timeline_of(
    run: RunRecord,
    attempts: Sequence[Attempt],
    answers: Sequence[Answer],
    effects: Sequence[Effect],
    decisions: Sequence[Decision],
) -> Timeline:
    """What a run did when.

    Args:
        attempts, answers, effects, decisions: all of the run's, in their order.
    """
    by_response: defaultdict[int, list[Effect]] = defaultdict(list)
    for effect in effects:
        by_response[effect.position.response].append(effect)
    last = max((attempt.attempt for attempt in attempts), default=0)
    return Timeline(
        started_at=run.inserted_at,
        ended_at=run.finished_at,
        attempts=list(attempts),
        steps=_steps(attempts, answers, by_response, last),
        waits=_waits(run, attempts, effects, decisions),
        saved=_saved(answers, effects, last),
    )


# --- steps


def _steps(
    attempts: Sequence[Attempt],
    answers: Sequence[Answer],
    by_response: dict[int, list[Effect]],
    last: int,
) -> list[TimelineStep]:
    began = {attempt.attempt: attempt.started_at for attempt in attempts}
    steps: list[TimelineStep] = []
    before: TimelineStep | None = None
    for answer in answers:
        before = TimelineStep(
            seq=answer.seq,
            attempt=answer.attempt,
            started_at=_asked_at(answer, began.get(answer.attempt), before),
            answered_at=answer.at,
            model=answer.model,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            cost_nanousd=answer.cost_nanousd,
            tools=answer.tools,
            calls=[_call(effect, answer.at) for effect in by_response.get(answer.seq, ())],
            reused=answer.attempt < last,
        )
        steps.append(before)
    return steps


def _asked_at(answer: Answer, began: datetime | None, before: TimelineStep | None) -> datetime:
    """When a model was asked at the earliest: once what it was told had come to be."""
    times = [] if began is None else [began]
    if before is not None:
        times.append(before.answered_at)
        times += [call.ended_at for call in before.calls if call.ended_at is not None]
    return max((at for at in times if at <= answer.at), default=answer.at)


def _call(effect: Effect, answered_at: datetime) -> TimelineCall:
    return TimelineCall(
        call_id=effect.call_id,
        tool_name=effect.tool_name,
        policy=effect.policy,
        state=effect.state,
        attempt=effect.attempt,
        started_at=max(effect.started_at, answered_at),
        ended_at=effect.finished_at,
        waited=effect.ask is not None,
    )


# --- waits


def _waits(
    run: RunRecord,
    attempts: Sequence[Attempt],
    effects: Sequence[Effect],
    decisions: Sequence[Decision],
) -> list[TimelineWait]:
    decided = {d.position: d for d in decisions if d.decision != "escalated"}
    waits = [_wait_of(effect, decided) for effect in effects if effect.ask is not None]
    waits += _in_queue(run, attempts)
    waits += _of_run(run, attempts, waits)
    return sorted(waits, key=lambda wait: wait.started_at)


def _wait_of(effect: Effect, decided: dict[CallPosition | None, Decision]) -> TimelineWait:
    """A call's: until somebody decided, or until what it waited for came."""
    since, decision = effect.asked_at or effect.started_at, decided.get(effect.position)
    if decision is not None and decision.at >= since and not effect.asked:
        return TimelineWait(effect.ask or "", effect.call_id, since, decision.at, decision.by)
    over = None if effect.state is EffectState.AWAITING else effect.finished_at
    return TimelineWait(effect.ask or "", effect.call_id, since, over, effect.resolved_by)


def _in_queue(run: RunRecord, attempts: Sequence[Attempt]) -> list[TimelineWait]:
    """From when it was due to its first attempt; later attempts don't say when they were due."""
    if run.waited_ms is None or not attempts or not run.waited_ms:
        return []
    claimed = attempts[0].started_at
    due = claimed - timedelta(milliseconds=run.waited_ms)
    return [TimelineWait("queue", "", due, claimed)]


def _of_run(
    run: RunRecord, attempts: Sequence[Attempt], known: Iterable[TimelineWait]
) -> list[TimelineWait]:
    """Between attempts, where it was suspended and no call of it is known to have waited."""
    covers = _covering([wait for wait in known if wait.call_id])
    kind = (run.waiting_on or {}).get("kind")
    found: list[TimelineWait] = []
    for attempt, after in zip_longest(attempts, attempts[1:]):
        if attempt.outcome is not AttemptOutcome.SUSPENDED or attempt.ended_at is None:
            continue
        until = run.finished_at if after is None else after.started_at
        if covers(attempt.ended_at, until):
            continue
        still = after is None and kind is not None
        found.append(TimelineWait(str(kind) if still else "suspended", "", attempt.ended_at, until))
    return found


def _covering(waits: Sequence[TimelineWait]) -> Callable[[datetime, datetime | None], bool]:
    """Tells whether any of the waits reaches into a time, without looking at each of them."""
    waits = sorted(waits, key=lambda wait: wait.started_at)
    starts = [wait.started_at for wait in waits]
    latest_ends = list(accumulate((wait.ended_at or _NEVER for wait in waits), max))

    def covers(since: datetime, until: datetime | None) -> bool:
        begun = len(starts) if until is None else bisect_left(starts, until)
        return begun > 0 and latest_ends[begun - 1] > since

    return covers


# --- what resuming saved


def _saved(answers: Sequence[Answer], effects: Sequence[Effect], last: int) -> Saved:
    kept = [answer for answer in answers if answer.attempt < last]
    made = [e for e in effects if e.attempt < last and e.state in (_DONE, _FAILED)]
    return Saved(
        responses=len(kept),
        tokens=sum(answer.input_tokens + answer.output_tokens for answer in kept),
        cost_nanousd=sum(answer.cost_nanousd or 0 for answer in kept),
        calls=sum(not e.position.step for e in made),
    )


_DONE, _FAILED = EffectState.DONE, EffectState.FAILED
_NEVER = datetime.max.replace(tzinfo=UTC)
