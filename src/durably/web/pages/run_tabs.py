"""What is read for each tab of a run's page; how it is shown is the views' and the templates'."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from durably import Draft
from durably.allowed import call_decisions
from durably.records import Decision, Effect, Event, StoredMessage
from durably.run import Run
from durably.web.pages.run_records import record
from durably.web.site import Site
from durably.web.views.conversation import answer_from, prompt_turn
from durably.web.views.conversation import conversation as turns_of
from durably.web.views.drafts import Making, making_of
from durably.web.views.masking import (
    masked_attempt,
    masked_decision,
    masked_effect,
    masked_event,
    masked_message,
    masked_signal,
)
from durably.web.views.timeline import chart_of
from durably.web.views.values import compact, parsed, shown

WINDOW = 40
"""Messages that are shown at first, and each time that earlier ones are asked for."""

EFFECTS = 100
EVENTS = 200
"""Effects and events that are shown, the last ones, and each time that earlier ones are."""


async def conversation(site: Site, run: Run[Any], before: int | None) -> dict[str, Any]:
    """The last messages, and the one in the making; or those ahead of a position."""
    cursor = await run.cursor()
    messages = await _window(site, run, before)
    live = before is None and not run.state.final
    draft = Draft()
    for event in await run.events(cursor) if live else []:
        draft.apply(event)
    making = making_of(draft.to_json(), messages, site.redact, hidden=site.hides)
    turns = await turns_for(site, run, messages, making)
    asked = None
    if not messages:
        asked = prompt_turn(compact(site.redact("prompt", parsed((await run.input()).prompt))))
    return {
        "turns": turns,
        "making": making.turn(run.record.attempt),
        "asked": asked,
        "cursor": cursor,
        "before": _earlier_than(messages),
        "live": live,
    }


async def messages_before(site: Site, run: Run[Any], before: int) -> dict[str, Any]:
    """The messages ahead of a position, as many as are shown at first."""
    messages = await _window(site, run, before)
    turns = await turns_for(site, run, messages)
    return {"turns": turns, "before": _earlier_than(messages)}


async def turns_for(
    site: Site, run: Run[Any], messages: list[StoredMessage], making: Making | None = None
) -> list[Any]:
    """The turns of consecutive messages, masked already, with what became of their calls."""
    first = messages[0].seq if messages else 0
    effects = [e for e in await run.effects() if e.position.response >= first]
    attempts = [masked_attempt(a, site.redact) for a in await run.attempts()]
    known = await run.last_messages(1, first) if first else []
    results = making.results if making else []
    return turns_of(
        [*messages, *results],
        [masked_effect(effect, site.redact) for effect in effects],
        attempts,
        known=masked_message(known[0], site.redact) if known else None,
        running=making.running if making else frozenset(),
    )


async def timeline(site: Site, run: Run[Any], before: int | None) -> dict[str, Any]:
    """The chart, and the same as a table."""
    timeline = await run.timeline()
    masked = [masked_attempt(attempt, site.redact) for attempt in timeline.attempts]
    timeline = replace(timeline, attempts=masked)
    return {"timeline": timeline, "chart": chart_of(timeline, datetime.now(UTC))}


async def effects(site: Site, run: Run[Any], before: int | None) -> dict[str, Any]:
    """Every call that the ledger knows of, what was decided about it, and signals."""
    decided: defaultdict[str, list[Decision]] = defaultdict(list)
    for decision in await run.decisions():
        decided[decision.call_id].append(masked_decision(decision, site.redact))
    found = await run.effects()
    shown_ones, earlier = _last(found, before, EFFECTS)
    rows = [
        _effect_row(run, effect, masked_effect(effect, site.redact), decided[effect.call_id])
        for effect in shown_ones
    ]
    signals = [masked_signal(signal, site.redact) for signal in await run.signals()]
    sent = [(signal, shown(signal.payload)) for signal in signals]
    return {"rows": rows, "before": earlier, "about_run": decided[""], "signals": sent}


async def attempts(site: Site, run: Run[Any], before: int | None) -> dict[str, Any]:
    """The attempts with their ends."""
    return {"attempts": [masked_attempt(a, site.redact) for a in await run.attempts()]}


async def usage(site: Site, run: Run[Any], before: int | None) -> dict[str, Any]:
    """What each step cost, all of them, and what resuming saved."""
    timeline = await run.timeline()
    costs = [step.cost_nanousd for step in timeline.steps]
    return {
        "steps": timeline.steps,
        "saved": timeline.saved,
        "usage": run.record.usage,
        "cost": sum(cost for cost in costs if cost is not None),
        "unpriced": costs.count(None),
        "total_nanousd": run.record.cost_nanousd,
    }


async def events(site: Site, run: Run[Any], before: int | None) -> dict[str, Any]:
    """The last events, without pieces of messages."""
    found, earlier = _last(await run.events(deltas=False), before, EVENTS)
    return {"events": [_event(event, site) for event in found], "before": earlier}


async def raw(site: Site, run: Run[Any], before: int | None) -> dict[str, Any]:
    """What the ledger has in the run's own row, and what it was asked; the rest is a link."""
    return {"record": shown(await record(site, run), 60_000)}


def _last[T](found: list[T], before: int | None, most: int) -> tuple[list[T], int | None]:
    """The last of a list, ahead of a place in it; and the place of the first, if more are there."""
    end = len(found) if before is None else max(0, min(before, len(found)))
    begin = max(0, end - most)
    return found[begin:end], begin or None


def _effect_row(
    run: Run[Any], effect: Effect, masked: Effect, decisions: list[Decision]
) -> dict[str, Any]:
    return {
        "effect": masked,
        "args": shown(parsed(masked.args)),
        "result": answer_from(masked.result).value if masked.result else None,
        "decisions": decisions,
        "open": effect.asked and bool(call_decisions(run.record, effect)),
    }


def _event(event: Event, site: Site) -> tuple[Event, Any]:
    return event, shown(masked_event(event, site.redact).data)


async def _window(site: Site, run: Run[Any], before: int | None = None) -> list[StoredMessage]:
    """The last messages ahead of a position, from a response on: calls stand with their answers."""
    found = await (
        run.last_messages(WINDOW + 1) if before is None else run.last_messages(WINDOW + 1, before)
    )
    if len(found) > WINDOW:
        responses = [n for n, m in enumerate(found) if m.kind == "response" and n > 0]
        found = found[responses[0] :] if responses else found[1:]
    return [masked_message(message, site.redact) for message in found]


def _earlier_than(messages: list[StoredMessage]) -> int | None:
    return messages[0].seq if messages and messages[0].seq > 0 else None
