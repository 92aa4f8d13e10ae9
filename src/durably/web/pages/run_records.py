"""All that the ledger knows of a run as one JSON value, masked; for whoever wants it raw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from durably.run import Run
from durably.web.site import Site
from durably.web.views.masking import (
    masked_attempt,
    masked_decision,
    masked_effect,
    masked_event,
    masked_message,
    masked_run,
    masked_signal,
)
from durably.web.views.values import parsed


async def record(site: Site, run: Run[Any]) -> dict[str, Any]:
    """The run's own row, and what it was asked."""
    mask = site.redact
    given = await run.input()
    masked = masked_run(run.record, mask)
    asked = {"prompt": mask("prompt", parsed(given.prompt)), "args": mask("args", given.args)}
    record = plain(masked) | {"output": parsed(masked.output)}
    del record["input"]  # It is beside the record.
    return {"run": record, "input": asked}


async def whole(site: Site, run: Run[Any]) -> dict[str, Any]:
    """The run, its input, messages, effects, attempts, decisions, signals and events."""
    mask = site.redact
    messages = [masked_message(message, mask) for message in await run.messages()]
    effects = [masked_effect(effect, mask) for effect in await run.effects()]
    return {
        **await record(site, run),
        "messages": [plain(message) | {"body": parsed(message.body)} for message in messages],
        "effects": [
            {"call_id": effect.call_id}
            | plain(effect)
            | {"args": parsed(effect.args), "result": parsed(effect.result)}
            for effect in effects
        ],
        "attempts": [plain(masked_attempt(a, mask)) for a in await run.attempts()],
        "decisions": [plain(masked_decision(d, mask)) for d in await run.decisions()],
        "signals": [plain(masked_signal(s, mask)) for s in await run.signals()],
        "events": [plain(masked_event(e, mask)) for e in await run.events(deltas=False)],
    }


def plain(value: object) -> Any:
    """Any record as JSON: dataclasses as objects, times as ISO 8601."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(field) for name, field in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("list[object]", value)]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
