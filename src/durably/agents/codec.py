"""What crosses an attempt to and from JSON: tool results, outputs and prompts.

Owns how they are written in the ledger; messages are left to history.py, and what type an
agent's output has to output_types.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pydantic
import pydantic_core
from pydantic_ai.messages import ToolReturn, UserContent, UserPromptPart

from durably.agents.exact import (
    BASE64,
    NOT_JSON,
    json_name,
    parse_json,
    read_exactly,
    why_not_json,
)
from durably.agents.history import BY_ALIAS, OWN_ROWS
from durably.agents.output_types import read_as, resolve_output_types
from durably.errors import HistoryError, ResultNotSerializable

# pydantic takes a config for a list but not for a dataclass.
_RESULT: pydantic.TypeAdapter[list[ToolReturn[Any]]] = pydantic.TypeAdapter(
    list[ToolReturn[Any]], config=BASE64
)
_PROMPTS = pydantic.TypeAdapter(list[UserPromptPart], config=BASE64)
_OUTPUTS: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(Any, config=BASE64)

# A ToolReturn says so; any other result is written the same way without saying it.
_MARK = "kind"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode_result(tool_name: str, result: object) -> str:
    """A tool's return value as JSON: ``{"return_value": …}``, a ToolReturn with its other fields.

    JSON values, pydantic models, dataclasses, pydantic-ai's files and lists or dicts of these. What
    has no JSON type of its own is written as pydantic-ai shows it to the model: a pydantic
    model as an object, a date as a string, bytes as base64, NaN and Infinity as null.

    Raises:
        ResultNotSerializable: names the tool, the type, and what to return instead.
    """
    if type(result) is str and _is_text(result):
        # What most tools return, and needs no proof that it can be read again.
        return _compact({"return_value": result})
    if isinstance(result, Iterator):
        # Writing it would use it up, and the model would be shown nothing.
        raise _not_a_result(tool_name, f"a {type(cast(object, result)).__qualname__}")
    marked = isinstance(result, ToolReturn)
    whole = cast("ToolReturn[Any]", result) if marked else ToolReturn[Any](return_value=result)
    try:
        # First without pydantic-ai's types, whose unions took minutes in older pydantic to find
        # that a result is nested too deeply.
        _OUTPUTS.dump_json(whole.return_value)
        fields: dict[str, object] = json.loads(_RESULT.dump_json([whole], by_alias=BY_ALIAS))[0]
        if not marked:
            del fields[_MARK]
        text = _compact({k: v for k, v in fields.items() if v is not None or k == "return_value"})
        # What cannot be read again must not be recorded; nor what the message that will hold it
        # could not be read with, where it is nested deeper.
        decode_result(text)
        pydantic_core.from_json(f"[[[[{text}]]]]")
    except HistoryError as error:
        what = f"a {type(cast(object, result)).__name__} that cannot be read again ({error})"
        raise _not_a_result(tool_name, what) from error
    except NOT_JSON as error:
        raise _not_a_result(tool_name, why_not_json(error)) from error
    return text


def decode_result(text: str) -> object:
    """What the tool returned, ready to be handed back to pydantic-ai.

    Files and ToolReturn are themselves again; what JSON has no type for stays as it was written.

    Raises:
        HistoryError: not what ``encode_result`` writes.
    """
    raw = parse_json(text)
    if not isinstance(raw, dict) or "return_value" not in raw:
        raise HistoryError("a recorded result is an object with a field 'return_value'.")
    fields = cast(dict[str, object], raw)
    kind = ToolReturn[Any](return_value=None).kind
    if fields.get(_MARK, kind) != kind:
        raise HistoryError(f"unknown kind {fields[_MARK]!r} of a recorded result.", _MARK)
    whole = read_exactly(_RESULT, [fields], f"[{text}]", lambda _: "", context=OWN_ROWS)[0]
    return whole if _MARK in fields else cast(object, whole.return_value)


def encode_output(agent_name: str, output: object) -> str:
    """An agent's output as plain JSON, readable with SQL; models by their field names.

    Raises:
        ResultNotSerializable: names the agent and the type.
    """
    try:
        # round_trip: without computed fields, and in a form that validation accepts again.
        return _OUTPUTS.dump_json(output, by_alias=False, round_trip=True).decode()
    except NOT_JSON as error:
        raise ResultNotSerializable(
            f"The output of agent {agent_name!r} holds {why_not_json(error)}, which cannot be "
            "written as JSON; use JSON values, a pydantic model or a dataclass as its output type."
        ) from error


def decode_output(text: str, output_type: object) -> object:
    """The output as the agent's ``output_type`` describes it; plain JSON where that is not clear.

    Of several possible types the one is taken that reads the text and writes it again unchanged.
    When two do, as with two models of the same fields, the plain JSON is returned rather than a
    guess: a ``Literal`` field tells them apart.

    Raises:
        HistoryError: the text is not JSON.
    """
    plain = parse_json(text)
    types = resolve_output_types(output_type)
    if not types:
        return plain
    found = [value for type_ in types for value in read_as(type_, text)]
    if len(types) > 1:
        found = [value for value in found if _writes(value, plain)]
    return found[0] if len(found) == 1 else plain


def encode_prompt(prompt: str | Sequence[UserContent]) -> str:
    """A prompt as JSON: a string, or a list of pydantic-ai's user content. Equal ones, equal text.

    Raises:
        ResultNotSerializable: the prompt is neither, or holds something that is not JSON.
    """
    if type(prompt) is str and _is_text(prompt):
        return _compact(prompt)  # What most prompts are, and needs no proof.
    try:
        # Not a dict, whose keys would be taken for the prompt, nor bytes, a sequence of numbers.
        given = cast(object, prompt)
        if not isinstance(given, Sequence) or isinstance(given, bytes | bytearray):
            raise HistoryError(f"it is a {type(given).__name__}.")
        content = prompt if isinstance(prompt, str) else list(prompt)
        part = UserPromptPart(content=content, timestamp=_EPOCH)
        text = _compact(json.loads(_PROMPTS.dump_json([part], by_alias=True))[0]["content"])
        decode_prompt(text)
    except HistoryError as error:
        raise ResultNotSerializable(
            f"The prompt is not a string or user content: {error}"
        ) from error
    except NOT_JSON as error:
        raise ResultNotSerializable(
            f"The prompt holds {why_not_json(error)}, which cannot be written as JSON."
        ) from error
    return text


def decode_prompt(text: str) -> str | Sequence[UserContent]:
    """The prompt that ``encode_prompt`` wrote; HistoryError when it is something else."""
    content = parse_json(text)
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise HistoryError(f"a prompt is a string or a list, not {json_name(content)}.")
    raw = {"content": cast(object, content), "timestamp": "1970-01-01T00:00:00Z"}
    raw["part_kind"] = "user-prompt"
    part = read_exactly(_PROMPTS, [raw], f"[{_compact(raw)}]", lambda _: "")[0]
    return part.content


def _writes(value: object, plain: object) -> bool:
    try:
        written = json.loads(encode_output("", value))
    except ResultNotSerializable:
        return False
    # As text, because to Python True, 1 and 1.0 are equal.
    return json.dumps(written, sort_keys=True) == json.dumps(plain, sort_keys=True)


def _is_text(value: str) -> bool:
    """Whether it can be written: a lone surrogate cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _not_a_result(tool_name: str, what: str) -> ResultNotSerializable:
    return ResultNotSerializable(
        f"Tool {tool_name!r} returned {what}, which cannot be written as JSON; return JSON values, "
        "a pydantic model, a dataclass or a ToolReturn of these instead."
    )
