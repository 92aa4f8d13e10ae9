"""What is hidden of messages, calls and events: the site's hook, called for each value in them.

Owns where in a stored message the values are; what becomes of one is the application's.
"""

from __future__ import annotations

import json
from typing import Any, cast

from durably.web.site import Redact, nothing_hidden

type Fields = dict[str, Any]

_CONTENT = {
    "system-prompt": "prompt",
    "user-prompt": "prompt",
    "text": "text",
    "thinking": "text",
    "tool-return": "result",
    "builtin-tool-return": "result",
    "retry-prompt": "error",
}
"""What the content of each kind of part is; of any other it is a result."""


def message(redact: Redact, body: Any) -> Any:
    """A stored message as it may be shown."""
    if redact is nothing_hidden or not isinstance(body, dict):
        return body
    shown = dict(cast("Fields", body))
    if shown.get("instructions") is not None:
        shown["instructions"] = redact("prompt", shown["instructions"])
    parts = shown.get("parts")
    if isinstance(parts, list):
        shown["parts"] = [_part(redact, part) for part in cast("list[Any]", parts)]
    return shown


def event(redact: Redact, data: Fields) -> Fields:
    """What an event says, as it may be shown; deltas are not (see `shows_deltas`)."""
    if redact is nothing_hidden or "error" not in data:
        return data
    return data | {"error": redact("error", data["error"])}


def shows_deltas(redact: Redact) -> bool:
    """Whether messages in the making may be shown: a piece of one says not what it is a piece of,
    so where something is hidden they are shown once they are whole.
    """
    return redact is nothing_hidden


def optional(redact: Redact, what: str, value: Any) -> Any:
    """A value as it may be shown; nothing where there is none."""
    return None if value is None else redact(what, value)


def _part(redact: Redact, part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    shown = dict(cast("Fields", part))
    kind = str(shown.get("part_kind"))
    if shown.get("content") is not None:
        shown["content"] = redact(_CONTENT.get(kind, "result"), shown["content"])
    if shown.get("metadata") is not None:
        shown["metadata"] = redact("result", shown["metadata"])
    if shown.get("args") is not None:
        shown["args"] = _args(redact, shown["args"])
    return shown


def _args(redact: Redact, args: Any) -> Any:
    """Arguments are an object, or its JSON as the provider wrote it."""
    if not isinstance(args, str):
        return redact("args", args)
    try:
        value = json.loads(args or "{}")
    except (ValueError, RecursionError):
        return redact("args", args)
    shown = redact("args", value)
    return args if shown == value else json.dumps(shown)
