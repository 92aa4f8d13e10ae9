"""Usage of a run over all its attempts: pydantic-ai's RunUsage <-> JSON, and taking one back.

Owns the arithmetic of a replayed response: it is counted again when it is replayed.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.usage import RunUsage

from durably.budgets import FROM_CHILDREN, Spent

_adapter = TypeAdapter(RunUsage)
_ORDER = tuple(field.name for field in fields(RunUsage))
_KNOWN = frozenset(_ORDER)


def usage_to_json(usage: RunUsage, from_children: Spent | None = None) -> str:
    """As stored with the run: only what is not zero, so that it reads well.

    Args:
        from_children: the part of it that child runs have spent.
    """
    data = _counters(usage)
    if from_children is not None and (spent := from_children.to_json()):
        data[FROM_CHILDREN] = spent
    return json.dumps(data)


def _counters(usage: RunUsage) -> dict[str, Any]:
    """The counters that are not zero, as JSON has them. Mostly numbers: they need no converting."""
    given = vars(usage)
    data = {name: given[name] for name in _ORDER if given.get(name)}
    if not given.keys() <= _KNOWN:
        data |= {name: count for name, count in given.items() if count and name not in _KNOWN}
    counts = [count for name, count in data.items() if name != "details"]
    counts += data.get("details", {}).values()
    if all(type(count) is int for count in counts):
        return data
    written: dict[str, Any] = _adapter.dump_python(usage, mode="json")
    return {name: count for name, count in written.items() if count}


def usage_from(data: dict[str, Any]) -> RunUsage:
    """Read what `usage_to_json` wrote; counters that this pydantic-ai does not know are dropped."""
    known = {f.name for f in fields(RunUsage)}
    try:
        return _adapter.validate_python({k: v for k, v in data.items() if k in known})
    except ValidationError:
        # Another version counted in another form: what every version has still limits the run.
        usage = RunUsage()
        for name in ("requests", "tool_calls", "input_tokens", "output_tokens"):
            if isinstance(data.get(name), int):
                setattr(usage, name, data[name])
        return usage


def copied(usage: RunUsage) -> RunUsage:
    """A copy that later counting does not change: of numbers, and of one dict of numbers."""
    again = copy.copy(usage)
    again.details = dict(usage.details)
    return again


def counters_of(usage: RunUsage) -> Mapping[str, Any]:
    """The counters as they are now, whatever is counted later."""
    return vars(usage) | {"details": dict(usage.details)}


def usage_after(before: Mapping[str, Any], now: RunUsage, response: ModelResponse) -> RunUsage:
    """Usage including this response and its request, which pydantic-ai counts at its own time.

    Newer versions have added the response's tokens to ``now`` when the request returns, older
    ones add them after; no version has counted the request yet.

    Args:
        before: the counters before the request.
    """
    after = copied(now)
    if vars(now) == before:
        after.incr(response.usage)
    after.requests = before["requests"] + 1
    return after


def usage_before(total: RunUsage, response: ModelResponse) -> RunUsage:
    """Usage without this response and its request: what a run that replays it starts from."""
    before = copied(total)
    before.requests = max(0, total.requests - 1)
    for f in fields(response.usage):
        spent = getattr(response.usage, f.name)
        total_of = getattr(before, f.name, None)
        # Also the dollars of newer versions, which are None where no price is known.
        if isinstance(spent, int | float | Decimal) and total_of is not None:
            setattr(before, f.name, max(type(spent)(0), total_of - spent))
    for name, spent in response.usage.details.items():
        left = before.details.get(name, 0) - spent
        before.details[name] = max(0, left)
    before.details = {name: value for name, value in before.details.items() if value}
    return before
