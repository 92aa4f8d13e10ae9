"""What a person is asked about a call, as the form with which they decide. Pure.

Owns what a form offers and what it carries along; whether it may still be decided is the ledger's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from durably.records import Effect
from durably.web.views.forms import Field, fields_from
from durably.web.views.text import visible
from durably.web.views.values import (
    Shown,
    compact,
    editable,
    fields_of,
    items_of,
    parsed,
    shown,
    text_of,
)

MOST_EDITABLE = 100_000
"""Characters of arguments that a form offers to edit."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One call that waits for a person.

    Attributes:
        kind: ``approval``, ``answer``, ``question`` or ``doubt``.
        args: what the tool would be called with, masked.
        edited: the arguments to edit; None where they are masked, huge or damaged.
        expected: the arguments that were shown, for the decision to be about these.
        fields: of a question with a form; and of an approval, for arguments that have a schema.
        choices: the JSON of each choice, and how it is shown.
        schema: of the arguments, as a hint for whoever edits them.
    """

    call_id: str
    tool_name: str
    kind: str
    args: Shown
    edited: str | None
    expected: str | None
    question: str
    fields: tuple[Field, ...]
    choices: tuple[tuple[str, str], ...]
    schema: Shown | None
    error: str
    effect: Effect


def asked(effect: Effect, masked: Effect) -> Asked:
    """The form for a call.

    Args:
        masked: the same call as it may be shown.
    """
    args = parsed(effect.args)
    open_to_see = args == parsed(masked.args) and isinstance(args, dict)
    small = open_to_see and len(effect.args) <= MOST_EDITABLE
    request = fields_of(effect.request)
    form = request.get("form")
    schema = request.get("schema")
    return Asked(
        call_id=effect.call_id,
        tool_name=effect.tool_name,
        kind=effect.ask or "doubt",
        args=shown(parsed(masked.args)),
        edited=editable(parsed(effect.args)) if small else None,
        expected=compact(parsed(effect.args)) if small else None,
        question=visible(text_of(request.get("question"))),
        fields=tuple(fields_from(form)),
        choices=tuple((json.dumps(c), text_of(c)) for c in items_of(request.get("choices"))),
        schema=shown(schema) if schema is not None else None,
        error=masked.error or "",
        effect=masked,
    )
