"""The application's redaction hook, applied to stored messages, effects, attempts and runs.

Owns which field of what is called what; whoever shows a record masks it first, then cuts it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from durably.records import Attempt, Decision, Effect, Event, RunRecord, Signal, StoredMessage
from durably.web.views.values import fields_of, is_list, is_object, items_of, parsed

type Mask = Callable[[str, Any], Any]

_CONTENT = {
    "user-prompt": "prompt",
    "system-prompt": "prompt",
    "text": "text",
    "thinking": "text",
    "file": "text",
    "tool-return": "result",
    "builtin-tool-return": "result",
    "retry-prompt": "error",
    "retry-feedback": "error",
}

_ENVELOPE = {"retry": "error", "failed": "error", "timeout": "error", "unknown": "error"}


def masked_message(message: StoredMessage, mask: Mask) -> StoredMessage:
    """A message with every content of its parts masked."""
    return replace(message, body=_written(masked_body(parsed(message.body), mask)))


def masked_body(body: Any, mask: Mask) -> Any:
    """A message's JSON with every content of its parts masked; damaged JSON as a text."""
    if not is_object(body):
        return mask("text", body)
    fields = fields_of(body)
    if "instructions" in fields:
        fields = fields | {"instructions": mask("prompt", fields["instructions"])}
    if is_list(fields.get("parts")):
        fields = fields | {"parts": [masked_part(part, mask) for part in items_of(fields["parts"])]}
    return fields


def masked_part(part: Any, mask: Mask) -> Any:
    """One part of a message: its arguments, or its content; one of an unknown kind as a whole."""
    if not is_object(part):
        return mask("text", part)
    fields = fields_of(part)
    kind = fields.get("part_kind")
    if kind in ("tool-call", "builtin-tool-call"):
        args = fields.get("args")
        return fields | {"args": mask("args", parsed(args) if isinstance(args, str) else args)}
    if not isinstance(kind, str) or kind not in _CONTENT:
        return mask("text", fields)
    return fields | {"content": mask(_CONTENT[kind], fields.get("content"))}


def masked_effect(effect: Effect, mask: Mask) -> Effect:
    """A call with its arguments, its result and what went wrong masked."""
    return replace(
        effect,
        args=_written(mask("args", parsed(effect.args))),
        result=None if effect.result is None else _written(_outcome(parsed(effect.result), mask)),
        error=_text(mask, effect.error),
    )


def masked_attempt(attempt: Attempt, mask: Mask) -> Attempt:
    """An attempt with its error and traceback masked."""
    return replace(
        attempt, error=_text(mask, attempt.error), traceback=_text(mask, attempt.traceback)
    )


def masked_run(run: RunRecord, mask: Mask) -> RunRecord:
    """A run with its output and error masked."""
    output = None if run.output is None else _written(mask("output", parsed(run.output)))
    return replace(run, output=output, error=_text(mask, run.error))


def masked_signal(signal: Signal, mask: Mask) -> Signal:
    """A signal with its payload masked."""
    return replace(signal, payload=mask("payload", signal.payload))


def masked_event(event: Event, mask: Mask) -> Event:
    """An event with what went wrong masked; arguments and results are in none."""
    if "error" not in event.data:
        return event
    return replace(event, data=event.data | {"error": mask("error", event.data["error"])})


def masked_decision(decision: Decision, mask: Mask) -> Decision:
    """A decision with the arguments that it was about masked."""

    def args(text: str | None) -> str | None:
        return None if text is None else _written(mask("args", parsed(text)))

    return replace(
        decision, args_before=args(decision.args_before), args_after=args(decision.args_after)
    )


def _outcome(envelope: Any, mask: Mask) -> Any:
    """A recorded result: the envelope stays, what is in it is masked."""
    match envelope:
        case {"return": {"return_value": value, **rest}}:
            return {"return": {"return_value": mask("result", value), **rest}}
        case {"child": {"output": output, **rest}}:
            return {"child": {"output": mask("output", output), **rest}}
        case {"child": {"error": error, **rest}}:
            return {"child": {"error": mask("error", error), **rest}}
        case {"retry_part": body}:
            return {"retry_part": masked_body(body, mask)}
        case _ if len(fields_of(envelope)) == 1:
            ((kind, said),) = fields_of(envelope).items()
            return {kind: mask(_ENVELOPE.get(kind, "result"), said)}
        case _:
            return mask("result", envelope)


def _text(mask: Mask, text: str | None) -> str | None:
    if text is None:
        return None
    said = mask("error", text)
    return said if said is None or isinstance(said, str) else json.dumps(said)


def _written(value: Any) -> str:
    return json.dumps(value)
