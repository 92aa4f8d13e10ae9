"""The message in the making: what whoever watches is shown of it until it is there. Pure.

Owns what is shown of parts that are not whole yet; it goes once the message itself comes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from durably.records import StoredMessage
from durably.web.views.conversation import draft_turn
from durably.web.views.masking import Mask, masked_part
from durably.web.views.turns import Turn
from durably.web.views.values import fields_of, items_of, parsed, text_of

HIDDEN = "…"
"""In the place of arguments that are not whole, where some have to be masked."""


@dataclass(frozen=True, slots=True)
class Making:
    """What is in the making.

    Attributes:
        seq: the position that the response will have.
        parts: of the response so far, masked.
        running: the ids of the last response's calls that have begun.
        results: those that have ended, as the message that will hold them; none: an empty list.
    """

    seq: int
    parts: list[Any] = field(default_factory=list[Any])
    running: frozenset[str] = frozenset()
    results: list[StoredMessage] = field(default_factory=list[StoredMessage])

    def turn(self, attempt: int) -> Turn | None:
        """The response so far; None if nothing of it is there."""
        return draft_turn(self.seq, attempt, self.parts) if self.parts else None


def making_of(
    draft: Mapping[str, Any], messages: Sequence[StoredMessage], mask: Mask, *, hidden: bool
) -> Making:
    """What a draft holds, after the messages that are there.

    Args:
        draft: as `durably.Draft.to_json` has it.
        hidden: something may have to be masked, which half of it cannot be.
    """
    last = messages[-1].seq if messages else -1
    parts = [_masked(part, mask, hidden) for part in items_of(draft.get("parts"))]
    running = {text_of(fields_of(part).get("tool_call_id")) for part in draft.get("running", ())}
    results = [masked_part(part, mask) for part in items_of(draft.get("results"))]
    body = json.dumps({"parts": results})
    request = StoredMessage(last + 1, "request", 0, body, datetime.now(UTC))
    return Making(last + 2, parts, frozenset(running), [request] if results else [])


def _masked(part: Any, mask: Mask, hidden: bool) -> Any:
    fields = fields_of(part)
    args = fields.get("args")
    if hidden and isinstance(args, str) and isinstance(parsed(args), str):
        return fields | {"args": HIDDEN}
    return masked_part(part, mask)
