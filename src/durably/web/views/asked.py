"""What a person is asked about a call, as the form with which they decide. Pure.

Owns what a form offers and what it carries along; whether it may still be decided is the ledger's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from durably.records import Effect
from durably.web.views.fields import Field
from durably.web.views.forms import form_from_schema
from durably.web.views.text import visible
from durably.web.views.values import (
    Shown,
    compact,
    fields_of,
    is_object,
    items_of,
    parsed,
    shown,
    text_of,
)

ARGS = "args"
"""What the names of the fields of arguments begin with; those of answers: ``value``."""

MOST_EDITABLE = 100_000
"""Characters of arguments that a form offers to edit."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One call that waits for a person.

    Attributes:
        kind: ``approval``, ``answer``, ``question`` or ``doubt``.
        args: what the tool would be called with, masked.
        edited: fields to edit the arguments in; None where they are masked, huge or damaged.
        expected: the arguments that were shown, for the decision to be about these.
        form: the fields of a question that has a form.
        allowed: what may be decided, of `durably.allowed.CALL_DECISIONS`.
        choices: the JSON of each choice, and how it is shown.
    """

    call_id: str
    tool_name: str
    kind: str
    args: Shown
    edited: Field | None
    expected: str | None
    question: str
    form: Field | None
    choices: tuple[tuple[str, str], ...]
    error: str
    effect: Effect
    allowed: tuple[str, ...]


def asked(effect: Effect, masked: Effect, allowed: tuple[str, ...]) -> Asked:
    """The form for a call.

    Args:
        masked: the same call as it may be shown.
        allowed: what may be decided about it.
    """
    args = parsed(effect.args)
    open_to_see = args == parsed(masked.args) and is_object(args)
    small = open_to_see and len(effect.args) <= MOST_EDITABLE
    request = fields_of(effect.request)
    schema = request.get("form")
    return Asked(
        call_id=effect.call_id,
        tool_name=effect.tool_name,
        kind=effect.ask or "doubt",
        args=shown(parsed(masked.args)),
        edited=_edited(request.get("schema"), args) if small else None,
        expected=compact(args) if small else None,
        question=visible(text_of(request.get("question"))),
        form=form_from_schema(schema) if schema is not None else None,
        choices=tuple((json.dumps(c), text_of(c)) for c in items_of(request.get("choices"))),
        error=masked.error or "",
        effect=masked,
        allowed=allowed,
    )


def _edited(schema: object, args: object) -> Field:
    return form_from_schema(schema or {}, args, prefix=ARGS, label="Arguments")
