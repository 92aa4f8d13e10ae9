"""What stands above the tabs of a run's page: what it is, how it is, what may be done about it.

Owns what is read for it; every answer is as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from durably.allowed import call_decisions
from durably.budgets import WHAT, describe
from durably.records import Attempt, RunRecord
from durably.run import Run
from durably.web.access import Person
from durably.web.site import Site
from durably.web.views.asked import Asked, asked
from durably.web.views.commands import Command, call_commands, run_commands
from durably.web.views.markdown import to_html
from durably.web.views.masking import masked_attempt, masked_effect, masked_run
from durably.web.views.values import Shown, fields_of, items_of, parsed, shown

MOST_RELATED = 20
"""How many children, and runs of the thread, are named."""


@dataclass(frozen=True, slots=True)
class Head:
    """A run as its page's head shows it.

    Attributes:
        above: the keys of the runs that started it, outermost first.
        children: the runs that its tools started; at most `MOST_RELATED`.
        earlier: runs of its thread before it, first to last.
        waits: what it waits for, in a sentence; empty while it waits for nothing.
        calls: what people are asked about its calls.
        signals: the names of signals that it waits for.
        may: what is allowed, to this person, of ``run.actions_allowed``.
        wants_budget: it waits for a budget.
        budget: how much is spent of each limit.
        output: Markdown as HTML, of an output that is text; ``value`` of any other.
        resumed: a later attempt went on from where an earlier one had come.
    """

    run: RunRecord
    above: list[str]
    children: list[RunRecord]
    more_children: int
    earlier: list[RunRecord]
    waits: str
    calls: list[Asked]
    signals: list[str]
    may: frozenset[str]
    wants_budget: bool
    budget: list[str]
    tokens: int
    output: Any
    value: Shown | None
    error: Shown | None
    resumed: bool
    commands: list[Command]
    call_commands: dict[str, list[Command]]
    attempt: Attempt | None


async def head_of(site: Site, run: Run[Any], person: Person) -> Head:
    """Everything above the tabs."""
    record = run.record
    path = (await run.path())[:-1] if record.parent_id is not None else []
    children = [child.record for child in await run.children()]
    calls = await _asked(site, run)
    masked = masked_run(record, site.redact)
    may = frozenset(run.actions_allowed)
    signals = [w["name"] for w in _waits(run) if w.get("for") == "signal" and "name" in w]
    url = site.app.ledger.url
    output = parsed(masked.output)
    return Head(
        run=masked,
        above=path,
        children=children[:MOST_RELATED],
        more_children=max(0, len(children) - MOST_RELATED),
        earlier=await _earlier(site, record),
        waits=run.describe_waiting() if record.waiting_on else "",
        calls=calls,
        signals=signals,
        may=may if person.may_act else frozenset(),
        wants_budget=(record.waiting_on or {}).get("kind") == "budget",
        budget=_budget(run),
        tokens=run.spent.tokens,
        output=to_html(output) if isinstance(output, str) else None,
        value=None if output is None or isinstance(output, str) else shown(output),
        error=shown(masked.error) if masked.error else None,
        resumed=record.attempt > 1,
        commands=list(run_commands(run.key, url, may, signals)),
        call_commands={c.call_id: list(call_commands(run.key, url, c)) for c in calls},
        attempt=await _failed_attempt(site, run),
    )


async def _asked(site: Site, run: Run[Any]) -> list[Asked]:
    """The calls that people decide about, while the run waits."""
    if run.record.waiting_on is None or run.record.in_line:
        return []
    return [
        asked(effect, masked_effect(effect, site.redact), decisions)
        for effect in await run.effects()
        if effect.asked and (decisions := call_decisions(run.record, effect))
    ]


async def _earlier(site: Site, record: RunRecord) -> list[RunRecord]:
    if record.thread is None:
        return []
    found = await site.app.runs(thread=record.thread, before=record.id, limit=MOST_RELATED)
    return [run.record for run in reversed(found)]


async def _failed_attempt(site: Site, run: Run[Any]) -> Attempt | None:
    """The last attempt, where the run has an error, for its traceback."""
    if not run.record.error:
        return None
    attempts = await run.attempts()
    return masked_attempt(attempts[-1], site.redact) if attempts else None


def _waits(run: Run[Any]) -> list[dict[str, Any]]:
    return [fields_of(wait) for wait in items_of((run.record.waiting_on or {}).get("waits"))]


def _budget(run: Run[Any]) -> list[str]:
    limits = [(what, run.budget.limit(what)) for what in WHAT]
    return [describe(what, n, run.spent.of(what)) for what, n in limits if n is not None]
