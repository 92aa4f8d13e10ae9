"""What people have to be told: written with what makes it wait, then sent at least once.

Owns the outbox; calling the hooks, and when to try again, is `durably.notifying`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from durably.ledger.columns import timestamp
from durably.ledger.fence import record_event
from durably.ledger.operations import Operation, Row, execute, fetch, fetch_one
from durably.ledger.rows import effect_from, notice_from, tags_from, waiting_from
from durably.records import Claim, Effect, Notice, RunRecord, Waiting

RUN_KINDS = ("change", "budget")
"""What a run itself may wait for a person for."""


def note_waiting(run: RunRecord) -> Operation[None]:
    """Somebody has to be told what a run that was just suspended waits for, if that is people.

    In the transaction that suspends it: a run that waits, and of which nobody will be told, is
    never seen. What people have been told of already is not told again.
    """
    yield from execute("insert_call_notices", run_id=run.id)
    kind = (run.waiting_on or {}).get("kind")
    if kind in RUN_KINDS:
        yield from _insert(run.id, None, str(kind), run.attempt, "waiting")


def note_escalation(effect: Effect) -> Operation[None]:
    """Somebody has to be told that nobody has decided about a call in time."""
    kind = effect.ask or "doubt"
    yield from _insert(effect.run_id, effect, kind, effect.attempt, "escalated")


def _insert(
    run_id: int, effect: Effect | None, kind: str, attempt: int, reason: str
) -> Operation[None]:
    position = effect.position if effect else None
    yield from execute(
        "insert_notice",
        run_id=run_id,
        response=position.response if position else None,
        call=position.call if position else None,
        step=position.step if position else "",
        kind=kind,
        attempt=attempt,
        reason=reason,
    )


def forget(run_id: int) -> Operation[None]:
    """Whoever was told of what a run waits for is told again, when it does again."""
    yield from execute("forget_notices", run_id=run_id)


def any_due() -> Operation[bool]:
    """Whether there is something to send; a read."""
    return (yield from fetch_one("find_due_notice")) is not None


def claim(seconds: float, limit: int) -> Operation[list[Notice]]:
    """Take up what is due, the oldest first, for so many seconds.

    If this worker has said nothing by then, because it died, another takes it up.
    """
    rows = yield from fetch("claim_notices", seconds=seconds, limit=limit)
    return sorted(map(notice_from, rows), key=lambda notice: notice.id)


def find_waiting(notice: Notice) -> Operation[Waiting | None]:
    """What a notice is about, as it is now; None if it waits no more. A read."""
    row = yield from _find(notice)
    if row is None:
        return None
    path = yield from fetch("list_path", run_id=notice.run_id)
    effect = effect_from(row) if notice.position else None
    waiting_on: dict[str, Any] = {} if effect else waiting_from(row) or {}
    waiting_on.pop("kind", None)
    run_key = path[-1]["key"]
    return Waiting(
        id=_public_id(run_key, notice),
        reason=notice.reason,
        tries=notice.tries,
        kind=notice.kind,
        run_key=run_key,
        agent=row["agent"],
        queue=row["queue"],
        tags=tags_from(row),
        path=[line["key"] for line in path],
        since=(effect.asked_at or effect.started_at) if effect else notice.made_at,
        at=notice.made_at,
        request=effect.request if effect else waiting_on,
        effect=effect,
    )


def _find(notice: Notice) -> Operation[Row | None]:
    asking = {"run_id": notice.run_id, "kind": notice.kind, "attempt": notice.attempt}
    if notice.position is None:
        return (yield from fetch_one("find_waiting_run", **asking))
    return (yield from fetch_one("find_waiting_call", **asking, **notice.position._asdict()))


def _public_id(run_key: str, notice: Notice) -> str:
    """The same at every try, and in no other ledger; without a dot, which ends it where it is
    signed (Standard Webhooks, "Signature scheme")."""
    name = f"{notice.id}\n{timestamp(notice.made_at)}\n{run_key}"
    return f"msg_{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def sent(notice: Notice, taken_by: Sequence[str]) -> Operation[bool]:
    """Every hook has taken it; False if that was known already."""
    yield from _hold_run(notice)
    settled = yield from execute(
        "settle_notice", notice_id=notice.id, taken_by=json.dumps(taken_by)
    )
    return settled > 0


def failed(
    notice: Notice, taken_by: Sequence[str], error: str, again_seconds: float | None
) -> Operation[bool]:
    """A hook did not take it: try again after a while, or give up and leave a word of it.

    Args:
        taken_by: the hooks that have taken it, which are not called again.
        again_seconds: None gives up.

    Returns:
        False if another worker has taken it up meanwhile.
    """
    yield from _hold_run(notice)
    postponed = yield from execute(
        "postpone_notice",
        notice_id=notice.id,
        tries=notice.tries,
        taken_by=json.dumps(taken_by),
        error=error,
        seconds=again_seconds,
    )
    if postponed and again_seconds is None:
        about: dict[str, object] = {"call_id": notice.call_id, "kind": notice.kind}
        claim = Claim(notice.run_id, notice.attempt, "")
        yield from record_event(claim, "notice_failed", **about, tries=notice.tries, error=error)
    return postponed > 0


def drop(notice: Notice) -> Operation[bool]:
    """Tell nobody of what was settled meanwhile; False if it waits after all.

    Asked once more while nobody can suspend the run again: whoever does that relies on notices
    that are still due.
    """
    yield from _hold_run(notice)
    if (yield from _find(notice)) is not None:
        return False
    return (yield from execute("drop_notice", notice_id=notice.id)) > 0


def count_given_up() -> Operation[int]:
    """How many things wait of which nobody could be told; a read."""
    row = yield from fetch_one("count_given_up")
    return 0 if row is None else row["notices"]


def _hold_run(notice: Notice) -> Operation[None]:
    yield from fetch_one("lock_run", run_id=notice.run_id)
