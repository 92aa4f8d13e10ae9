"""What waits for people, as the inbox lists it: what is asked, and what can be done with which key.

Pure. Owns how the things on a page are known again once somebody has decided them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from durably.allowed import item_decisions
from durably.budgets import UsedUp
from durably.records import Decision, Effect, InboxItem
from durably.web.views.masking import masked_effect
from durably.web.views.text import visible
from durably.web.views.values import Shown, parsed, shown, text_of

ARGS_CHARACTERS = 1500

MOST = 100
"""Things that one page lists."""

GONE_FOR = timedelta(seconds=45)
"""How long a thing stays on a page after somebody has decided it."""

MOST_GONE = 10


class Place(NamedTuple):
    """What a thing in the inbox is about: a call of a run, or with an empty id the run itself."""

    run_key: str
    call_id: str


class Seen(NamedTuple):
    """A thing that a page shows already.

    Attributes:
        gone_at: since when it is known to be decided; None: it was not when the page was made.
    """

    place: Place
    gone_at: datetime | None = None

    def to_json(self) -> str:
        """For a hidden field of the page."""
        at = self.gone_at.isoformat() if self.gone_at else None
        return json.dumps([*self.place, at])

    @classmethod
    def from_json(cls, text: str) -> Seen | None:
        """Read what `to_json` wrote; None for anything else."""
        match parsed(text):
            case [str(key), str(call_id), None]:
                return cls(Place(key, call_id))
            case [str(key), str(call_id), str(at)]:
                return cls(Place(key, call_id), _moment(at))
            case _:
                return None


@dataclass(frozen=True, slots=True)
class Way:
    """Something that can be done: its name in an address, its button's text, its key."""

    how: str
    text: str
    key: str
    look: str = ""


WAYS: dict[str, Way] = {
    "approve": Way("approve", "Approve", "a", "primary"),
    "edit": Way("edit", "Edit", "e"),
    "deny": Way("deny", "Deny", "d", "danger"),
    "answer": Way("answer", "Answer", "r", "primary"),
    "done": Way("resolve", "Resolve", "r", "primary"),
    "raise_budget": Way("raise", "Raise", "r", "primary"),
    "set_budget": Way("share", "Raise", "r", "primary"),
}
"""How what may be decided is offered here."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A thing in the list.

    Attributes:
        title: what is asked, before and after the tool's name.
        args: what the tool would be called with, or was.
        decided: of what is decided already: what, by whom, when and why.
    """

    place: Place
    seen: str
    kind: str
    title: tuple[str, str]
    tool_name: str
    agent: str = ""
    queue: str = ""
    tags: tuple[str, ...] = ()
    above: tuple[str, ...] = ()
    since: datetime | None = None
    expires: tuple[str, datetime] | None = None
    args: Shown | None = None
    error: str = ""
    ways: tuple[Way, ...] = ()
    gone: bool = False
    decided: str = ""

    @property
    def id(self) -> str:
        """Its id on the page: the same as long as it is the same thing."""
        return "item-" + "|".join(self.place).encode("utf-8", "backslashreplace").hex()


_TITLES = {
    "approval": ("May", "run?"),
    "answer": ("What does", "return?"),
    "question": ("", ""),
    "doubt": ("Did", "happen?"),
}

_EXPIRY = {"deny": "denied", "escalate": "passed on", "wait": "due"}


def place_of(item: InboxItem) -> Place:
    """What a thing is about."""
    return Place(item.run_key, item.effect.call_id if item.effect else "")


def listed(item: InboxItem, mask: Callable[[str, Any], Any]) -> Listed:
    """A thing that waits."""
    effect = masked_effect(item.effect, mask) if item.effect else None
    place = place_of(item)
    return Listed(
        place=place,
        seen=Seen(place).to_json(),
        kind=item.kind,
        title=_title(item, effect),
        tool_name=effect.tool_name if effect and item.kind != "question" else "",
        agent=item.agent,
        queue=item.queue,
        tags=tuple(map(str, item.tags)),
        above=tuple(item.path[:-1]),
        since=item.since,
        expires=_expiry(effect),
        args=_args(item, effect),
        error=_why(item, effect),
        ways=tuple(WAYS[may] for may in item_decisions(item) if may in WAYS),
    )


def gone(
    place: Place, effect: Effect | None, decisions: Iterable[Decision], now: datetime
) -> Listed:
    """A thing that was shown and that waits no more.

    Args:
        effect: the call; None for what was about the run, or where nothing is left of it.
    """
    last = [d for d in decisions if d.call_id == place.call_id][-1:]
    question = text_of(effect.request.get("question")) if effect else ""
    return Listed(
        place=place,
        seen=Seen(place, now).to_json(),
        kind=effect.ask or "doubt" if effect else "budget",
        title=(visible(question), "") if question else ("", ""),
        tool_name=effect.tool_name if effect and not question else "",
        gone=True,
        decided=_decided(last[0]) if last else "It waits for nobody any more.",
    )


def merged(seen: Sequence[Seen], waiting: Sequence[Listed], gone: Sequence[Listed]) -> list[Listed]:
    """What a page shows next: all in the places where they were, what is new at the end."""
    now = {one.place: one for one in [*gone, *waiting]}
    kept = [now.pop(one.place) for one in seen if one.place in now]
    return kept + list(now.values())


def _title(item: InboxItem, effect: Effect | None) -> tuple[str, str]:
    if effect is None:
        return (_budget(item.waiting), "")
    if item.kind == "question":
        return (visible(text_of(item.effect and item.effect.request.get("question"))), "")
    return _TITLES.get(item.kind, ("", ""))


def _budget(waiting: dict[str, Any]) -> str:
    used = UsedUp.read(waiting)
    if used is None:
        return "A budget is used up."
    return f"{used.whose()} is used up: {used.describe()}".capitalize()


def _args(item: InboxItem, effect: Effect | None) -> Shown | None:
    if effect is None or item.kind == "question":
        return None
    return shown(parsed(effect.args), ARGS_CHARACTERS)


def _why(item: InboxItem, effect: Effect | None) -> str:
    """Of a call in doubt: how that came about."""
    if effect is None or item.kind != "doubt":
        return ""
    return effect.error or f"Worker {item.worker or 'unknown'} died in attempt {effect.attempt}."


def _expiry(effect: Effect | None) -> tuple[str, datetime] | None:
    if effect is None or effect.expires_at is None:
        return None
    return (_EXPIRY.get(effect.on_expiry or "", "due"), effect.expires_at)


def _decided(decision: Decision) -> str:
    by = f" by {decision.by}" if decision.by else ""
    edited = decision.args_after is not None and decision.args_after != decision.args_before
    note = f": {decision.note}" if decision.note else "."
    return f"{decision.decision.capitalize()}{by}{', with other arguments' * edited}{note}"


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None
