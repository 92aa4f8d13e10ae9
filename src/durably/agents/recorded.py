"""A tool call's outcome <-> the JSON in its effect, and handing a recorded one back to pydantic-ai.

Owns the envelope: ``{"return": …}``, ``{"retry": …}`` or ``{"failed": …}``, and of what is inside a
tool ``{"timeout": …}`` or ``{"unknown": …}``; the value inside a return is the codec's.
"""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic_ai import ModelRetry
from pydantic_ai import exceptions as pai
from pydantic_ai.messages import ModelRequest

from durably.agents.codec import decode_result, encode_result
from durably.agents.exact import parse_json
from durably.agents.history import message_from_json, message_to_json
from durably.errors import HistoryError, OutcomeUnknown, SignalTimeout, StepFailed
from durably.wording import text_of

_ToolFailed: Any = getattr(pai, "ToolFailed", None)
_ToolFailedError: Any = getattr(pai, "ToolFailedError", None)

_ANSWER = "_durably_answer"


def returned(tool_name: str, result: object) -> str:
    """The envelope of a result.

    Raises:
        ResultNotSerializable: the result is not JSON; the message names the tool.
    """
    return '{"return":' + encode_result(tool_name, result) + "}"


def failed(message: str) -> str:
    """The envelope of a failure that the model is told."""
    return json.dumps({"failed": message})


def unknown(message: str) -> str:
    """The envelope of a step whose outcome nobody knows, and which is not asked about."""
    return json.dumps({"unknown": message})


def failure(envelope: str) -> str | None:
    """What a person, or the clock, said when a step failed or was denied; None otherwise."""
    data: dict[str, Any] = json.loads(envelope)
    return None if "failed" not in data else str(data["failed"])


def as_answer(error: StepFailed) -> Exception:
    """What a tool's own code did not catch of a step, as an answer to the model."""
    text = text_of(error)
    return ModelRetry(text) if _ToolFailed is None else _ToolFailed(text)


def mark_as_answer(error: ModelRetry) -> None:
    """Remember that the tool itself raised it: pydantic-ai may make something else of it."""
    setattr(error, _ANSWER, True)


def answer_envelope(error: BaseException) -> str | None:
    """The envelope of an exception that is an answer to the model; None if it is an error."""
    if isinstance(error, pai.UnexpectedModelBehavior) and hasattr(error.__cause__, _ANSWER):
        # One retry too many: the run fails, but the tool did say that nothing happened. Without
        # the mark it could be the failure of another agent that the tool ran.
        return answer_envelope(cast(ModelRetry, error.__cause__))
    if isinstance(error, ModelRetry):
        return json.dumps({"retry": error.message})
    if isinstance(error, pai.ToolRetryError):
        part = cast("Any", error.tool_retry)
        if isinstance(part.content, str):
            return json.dumps({"retry": part.content})
        return '{"retry_part":' + message_to_json(ModelRequest(parts=[part])) + "}"
    if _ToolFailed is not None and isinstance(error, _ToolFailed):
        return failed(str(cast("Any", error).message))
    if _ToolFailedError is not None and isinstance(error, _ToolFailedError):
        return failed(str(cast("Any", error).tool_failed.content))
    return None


def check(envelope: str) -> None:
    """See whether `replay`, or whoever else reads an envelope, will be able to.

    Raises:
        HistoryError: it is none of ours.
    """
    kind, what = _opened(envelope)
    said = cast("Any", what)
    fields: set[str] = set(said) if isinstance(what, dict) else set()
    if kind == "retry_part":
        _retry_part(said)
    elif not (
        (kind == "return" and "return_value" in fields)
        or (kind in ("retry", "failed", "timeout", "unknown") and isinstance(said, str))
        or (kind == "child" and {"key", "state", "usage"} <= fields)
    ):
        raise HistoryError(f"a recorded tool outcome is damaged: {kind!r} holds {said!r:.80}")


def _opened(envelope: str) -> tuple[str, object]:
    try:
        data = cast("dict[str, object]", parse_json(envelope))
        ((kind, said),) = data.items()
    except (ValueError, TypeError, AttributeError) as error:
        raise HistoryError(f"a recorded tool outcome is damaged: {error}") from error
    return kind, said


def _retry_part(said: object) -> Any:
    try:
        (part,) = cast("Any", message_from_json(json.dumps(said))).parts
    except ValueError as error:
        raise HistoryError(f"a recorded tool outcome is damaged: {error}") from error
    return part


def replay(envelope: str) -> object:
    """Answer as the tool answered then: return its result, or raise what it raised.

    Raises:
        ModelRetry: the tool asked the model to try again.
        ToolFailed: the tool told the model that it failed (text on versions without it).
        SignalTimeout: a wait inside the tool was over in vain.
        OutcomeUnknown: nobody knows whether a step inside the tool happened.
        HistoryError: the stored envelope is none of ours.
    """
    kind, what = _opened(envelope)
    said = cast("Any", what)
    match kind:
        case "return":
            return decode_result(json.dumps(said))
        case "retry":
            raise ModelRetry(said)
        case "retry_part":
            raise pai.ToolRetryError(_retry_part(said))
        case "timeout":
            raise SignalTimeout(said)
        case "unknown":
            raise OutcomeUnknown(said)
        case "failed":
            if _ToolFailed is not None:
                raise _ToolFailed(said)
            return f"The tool failed: {said}"
        case _:
            raise HistoryError(f"a recorded tool outcome has the unknown kind {kind!r}")
