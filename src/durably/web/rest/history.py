"""What happened in a run: messages, effects, attempts, events, decisions, signals, children."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import Field

from durably.web.rest.shown_calls import (
    ShownDecision,
    ShownEffect,
    ShownSignal,
    shown_decision,
    shown_effect,
    shown_signal,
)
from durably.web.rest.shown_runs import (
    ShownAttempt,
    ShownEvent,
    ShownMessage,
    ShownRun,
    shown_attempt,
    shown_event,
    shown_message,
    shown_run,
)
from durably.web.rest.speaking import MAX_ID, Answer, Key, Model, of_run, rest_routes
from durably.web.site import SiteOf, Viewer

MAX_SEQ = 2**31 - 1

routes = rest_routes("history")


class Messages(Model):
    """The checkpointed history."""

    messages: Annotated[list[ShownMessage], Field(description="First to last.")]


class Effects(Model):
    """The tool calls that the ledger knows of."""

    effects: Annotated[list[ShownEffect], Field(description="In the order of the calls.")]


class Attempts(Model):
    """The attempts so far."""

    attempts: Annotated[list[ShownAttempt], Field(description="First to last.")]


class Events(Model):
    """What happened so far."""

    events: Annotated[list[ShownEvent], Field(description="First to last.")]


class Decisions(Model):
    """What people decided."""

    decisions: Annotated[list[ShownDecision], Field(description="First to last.")]


class Signals(Model):
    """What was sent to a run."""

    signals: Annotated[list[ShownSignal], Field(description="First to last.")]


class Children(Model):
    """The runs that its tools started."""

    children: Annotated[list[ShownRun], Field(description="First to last.")]


@routes.get(
    "/runs/{key:path}/history",
    operation_id="getRunHistory",
    response_model=Messages,
    responses=of_run(),
)
async def history(
    site: SiteOf,
    _: Viewer,
    key: Key,
    after: Annotated[
        int, Query(ge=-1, le=MAX_SEQ, description="Only messages after this position.")
    ] = -1,
) -> Answer:
    """The checkpointed messages."""
    run = await site.app.get(key)
    found = await run.messages(after)
    return Answer(Messages(messages=[shown_message(site.redact, m) for m in found]))


@routes.get(
    "/runs/{key:path}/effects",
    operation_id="getRunEffects",
    response_model=Effects,
    responses=of_run(),
)
async def effects(site: SiteOf, _: Viewer, key: Key) -> Answer:
    """The tool calls that the ledger knows of, with their states."""
    run = await site.app.get(key)
    found = await run.effects()
    return Answer(Effects(effects=[shown_effect(site.redact, effect) for effect in found]))


@routes.get(
    "/runs/{key:path}/attempts",
    operation_id="getRunAttempts",
    response_model=Attempts,
    responses=of_run(),
)
async def attempts(site: SiteOf, _: Viewer, key: Key) -> Answer:
    """The attempts, with their errors and tracebacks."""
    run = await site.app.get(key)
    found = await run.attempts()
    return Answer(Attempts(attempts=[shown_attempt(site.redact, attempt) for attempt in found]))


@routes.get(
    "/runs/{key:path}/events",
    operation_id="getRunEvents",
    response_model=Events,
    responses=of_run(),
)
async def events(
    site: SiteOf,
    _: Viewer,
    key: Key,
    after: Annotated[int, Query(ge=0, le=MAX_ID, description="Only events after this id.")] = 0,
) -> Answer:
    """The events so far; `watch` streams them as they come."""
    run = await site.app.get(key)
    found = await run.events(after, deltas=not site.hides)
    return Answer(Events(events=[shown_event(site.redact, event) for event in found]))


@routes.get(
    "/runs/{key:path}/decisions",
    operation_id="getRunDecisions",
    response_model=Decisions,
    responses=of_run(),
)
async def decisions(site: SiteOf, _: Viewer, key: Key) -> Answer:
    """Who decided what, when and why."""
    run = await site.app.get(key)
    found = await run.decisions()
    return Answer(Decisions(decisions=[shown_decision(site.redact, each) for each in found]))


@routes.get(
    "/runs/{key:path}/signals",
    operation_id="getRunSignals",
    response_model=Signals,
    responses=of_run(),
)
async def signals(site: SiteOf, _: Viewer, key: Key) -> Answer:
    """What was sent to it, and which wait took it."""
    run = await site.app.get(key)
    found = await run.signals()
    return Answer(Signals(signals=[shown_signal(site.redact, signal) for signal in found]))


@routes.get(
    "/runs/{key:path}/children",
    operation_id="getRunChildren",
    response_model=Children,
    responses=of_run(),
)
async def children(site: SiteOf, _: Viewer, key: Key) -> Answer:
    """The runs that its tools started."""
    run = await site.app.get(key)
    found = await run.children()
    return Answer(Children(children=[shown_run(site.redact, child) for child in found]))
