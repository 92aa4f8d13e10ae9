"""What ``enqueue`` was asked for, checked and written as a new run.

Owns the rules of keys and options; storing the run is the ledger's.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from durably import agents
from durably.agents.registry import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_QUEUE,
    Prompt,
    Registration,
    Registry,
)
from durably.budgets import Budget
from durably.dispatch.requests import RunRequest
from durably.errors import ConfigError, HistoryError, KeyConflict
from durably.ledger.columns import timestamp
from durably.records import ON_BUSY, NewRun, RunInput, RunRecord

MAX_SECONDS = 100 * 365 * 86_400.0


def new_run(
    agent: str,
    prompt: Prompt,
    registration: Registration | None,
    *,
    key: str | None,
    args: Mapping[str, Any] | None,
    queue: str | None,
    priority: int,
    max_attempts: int | None,
    delay: float,
    scheduled_at: datetime | None,
    tags: Iterable[str],
    meta: Mapping[str, Any] | None,
    unique_for: float | None,
    thread: str | None = None,
    on_busy: str = "queue",
    budget: Budget | None = None,
    stream: bool | None = None,
) -> NewRun:
    """The row that these options ask for; see `Durably.enqueue` for what they mean.

    Args:
        registration: the agent's, for its defaults; None if this process does not know the agent.

    Raises:
        ConfigError: an option cannot work; the message says which and why.
    """
    tags = list(tags)
    _check(key, priority, max_attempts, scheduled_at, unique_for)
    _check_thread(thread, on_busy)
    for what, text in (
        ("agent", agent),
        ("key", key),
        ("queue", queue),
        ("thread", thread),
        *(("tag", t) for t in tags),
    ):
        _check_text(what, text)
    _check_seconds("delay", delay)
    _check_seconds("unique_for", unique_for)
    prompt_json, args_json = agents.codec.encode_prompt(prompt), _json_object("args", args)
    twin: str | None = None
    if unique_for is not None:
        said = f"{agent}\n{prompt_json}\n{args_json}" + (f"\n{thread}" if thread else "")
        twin = hashlib.sha256(said.encode()).hexdigest()
    return NewRun(
        key=key or f"{agent}-{uuid.uuid4().hex[:12]}",
        agent=agent,
        prompt=prompt_json,
        queue=queue or (registration.queue if registration else DEFAULT_QUEUE),
        priority=priority,
        max_attempts=max_attempts
        or (registration.max_attempts if registration else DEFAULT_MAX_ATTEMPTS),
        args=args_json,
        tags=json.dumps(tags),
        meta=_json_object("meta", meta),
        delay_seconds=delay,
        scheduled_at=None if scheduled_at is None else timestamp(scheduled_at),
        fingerprint=twin,
        unique_seconds=unique_for,
        thread=thread,
        on_busy=on_busy,
        budget=None if budget is None else json.dumps(budget.to_json()),
        stream=stream,
    )


def many_runs(
    alike: NewRun, prompts: Iterable[Prompt], keys: Iterable[str] | None
) -> dict[str, str]:
    """The prompt of each of many runs, as JSON, by its key; random keys unless there are any given.

    Raises:
        ConfigError: a key cannot be, or there are not as many as prompts.
        KeyConflict: two of them have one key, and another prompt.
    """
    asked = [agents.codec.encode_prompt(prompt) for prompt in prompts]
    if keys is None:
        return {f"{alike.agent}-{uuid.uuid4().hex[:12]}": prompt for prompt in asked}
    named = list(keys)
    if len(named) != len(asked):
        raise ConfigError(f"{len(asked)} prompts with {len(named)} keys: one for each.")
    found: dict[str, str] = {}
    for key, prompt in zip(named, asked, strict=True):
        if not key.strip():
            raise ConfigError("A key is empty.")
        _check_text("key", key)
        if found.setdefault(key, prompt) != prompt:
            raise KeyConflict(f"The key {key!r} is given twice, with two prompts.")
    return found


class ChildIntake:
    """The rules for runs that a run's tool starts (see `agents.runner.ChildIntake`)."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __call__(
        self,
        parent: RunRecord,
        agent: str,
        prompt: Prompt,
        default_key: str,
        options: Mapping[str, Any],
    ) -> NewRun:
        own = dict(options)
        given_key, tags = own.pop("key"), own.pop("tags")
        priority = own.pop("priority")
        new = new_run(
            agent,
            prompt,
            self._registry.find(agent),
            key=given_key or default_key,
            priority=parent.priority if priority is None else priority,
            delay=0.0,
            scheduled_at=None,
            tags=dict.fromkeys([*parent.tags, *tags]),
            unique_for=None,
            **own,
        )
        return replace(new, parent_id=parent.id)


def sharers(thread: str | None, tag: str | None) -> tuple[str, str]:
    """Whose runs share a budget: ``thread`` or ``tag``, and its name.

    Raises:
        ConfigError: not exactly one of them is given, or it can be no name.
    """
    given = [(scope, name) for scope, name in (("thread", thread), ("tag", tag)) if name]
    if len(given) != 1:
        raise ConfigError("Say whose budget it is: thread=... or tag=..., one of them.")
    _check_text(*given[0])
    return given[0]


class JobIntake:
    """The rules for runs that are asked for by jobs, from any language (see `RunRequest`)."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def new_run(self, request: RunRequest) -> NewRun:
        return new_run(
            request.agent,
            _prompt_of(request),
            self._registry.find(request.agent),
            key=request.key,
            args=request.args,
            queue=request.queue,
            priority=request.priority or 0,
            max_attempts=request.max_attempts,
            delay=request.delay,
            scheduled_at=request.scheduled_at,
            tags=request.tags or (),
            meta=request.meta,
            unique_for=None,
            thread=request.thread,
            on_busy=request.on_busy,
            budget=None if request.budget is None else Budget.from_json(request.budget),
            stream=request.stream,
        )

    def check_same(self, new: NewRun, existing: RunRecord, asked: RunInput) -> None:
        check_same(new, existing, asked)


def _prompt_of(request: RunRequest) -> Prompt:
    if isinstance(request.prompt, str):
        return request.prompt
    try:
        return agents.codec.decode_prompt(json.dumps(request.prompt))
    except HistoryError as error:
        raise ConfigError(f"The prompt's parts cannot be read. {error}") from error


def check_same(new: NewRun, existing: RunRecord, asked: RunInput) -> None:
    """Refuse a key that already means something else.

    Raises:
        KeyConflict: the run under this key has another agent, prompt, args or thread.
    """
    if new.unique_seconds is not None or asked.damage:
        return
    different = [
        what
        for what, same in (
            (f"agent ({existing.agent!r})", existing.agent == new.agent),
            ("prompt", asked.prompt == new.prompt),
            ("args", asked.args == json.loads(new.args)),
            ("thread", existing.thread == new.thread),
        )
        if not same
    ]
    if different:
        raise KeyConflict(
            f"The key {new.key!r} belongs to a run with another {' and '.join(different)}; "
            "use another key for another run."
        )


def signal_payload(name: str, payload: Any) -> str:
    """A signal's payload as JSON.

    Raises:
        ConfigError: the name, or the payload, cannot be.
    """
    _check_text("name", name)
    if not name.strip():
        raise ConfigError("The signal's name is empty.")
    try:
        return json.dumps(payload, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The payload of signal {name!r} must be JSON: {error}.") from error


def _check(
    key: str | None,
    priority: int,
    max_attempts: int | None,
    scheduled_at: datetime | None,
    unique_for: float | None,
) -> None:
    if key is not None and unique_for is not None:
        raise ConfigError("Give key= or unique_for=, not both: a key is unique for ever.")
    if key is not None and not key.strip():
        raise ConfigError("The key is empty.")
    if not 0 <= priority <= 9:
        raise ConfigError(f"priority={priority}: 0 (first) to 9.")
    if max_attempts is not None and max_attempts < 1:
        raise ConfigError(f"max_attempts={max_attempts}: at least 1.")
    if scheduled_at is not None and scheduled_at.tzinfo is None:
        raise ConfigError("scheduled_at has no time zone: write datetime.now(UTC) + …")


def _check_thread(thread: str | None, on_busy: str) -> None:
    if thread is not None and not thread.strip():
        raise ConfigError("The thread is empty.")
    if on_busy not in ON_BUSY:
        raise ConfigError(f"on_busy={on_busy!r}: use one of: {', '.join(ON_BUSY)}.")
    if thread is None and on_busy != "queue":
        raise ConfigError(f"on_busy={on_busy!r} is about a thread's other runs: give thread= too.")


def _check_text(what: str, text: str | None) -> None:
    """Refuse what one database would store and another would not: NUL, half a character."""
    if text is not None and ("\0" in text or text != text.encode("utf-8", "replace").decode()):
        raise ConfigError(f"{what}={text!r} holds what no database can store as text.")


def _check_seconds(name: str, seconds: float | None) -> None:
    if seconds is not None and not 0 <= seconds <= MAX_SECONDS:  # also refuses NaN
        raise ConfigError(f"{name}={seconds}: from 0 to {MAX_SECONDS:.0f} seconds (100 years).")


def _json_object(what: str, value: Mapping[str, Any] | None) -> str:
    try:
        return json.dumps(dict(value or {}), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}= must be a JSON object: {error}.") from error
