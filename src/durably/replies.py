"""What a person answers, checked against what they were asked.

Owns the check; writing the decision down, and who may decide, is the ledger's and the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import jsonschema

from durably.errors import ConfigError
from durably.records import Effect

_jsonschema: Any = jsonschema  # It has no types.


def edited_args(effect: Effect, args: Mapping[str, Any]) -> str:
    """Other arguments for a call that waits for approval, as JSON.

    Raises:
        ConfigError: the tool does not take them; the message says which, and why.
    """
    given = _json(dict(args), f"The arguments for call {effect.call_id}")
    schema = effect.request.get("schema")
    if schema is not None:
        _check(args, schema, f"{effect.tool_name} does not take these arguments")
    return given


def checked_answer(effect: Effect, value: Any) -> Any:
    """An answer to a question, as the tool that asked it promised the model.

    Raises:
        ConfigError: it is none of the choices, or not what the form asks for.
    """
    if effect.ask != "question":
        return value
    choices = effect.request.get("choices")
    if choices is not None and value not in choices:
        offered = ", ".join(map(str, cast("list[object]", choices)))
        raise ConfigError(f"{value!r} is none of the choices: {offered}.")
    if (form := effect.request.get("form")) is not None:
        _check(value, form, "This is not what the form asks for")
    elif choices is None and not isinstance(value, str):
        raise ConfigError(f"The question wants text, not {type(value).__name__}.")
    return value


def _json(value: Any, what: str) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} are not JSON: {error}.") from error


def _check(value: Any, schema: Mapping[str, Any], what: str) -> None:
    validator = _jsonschema.validators.validator_for(schema)(schema)
    error = _jsonschema.exceptions.best_match(validator.iter_errors(value))
    if error is None:
        return
    where = ".".join(str(part) for part in error.absolute_path)
    raise ConfigError(f"{what}: {where + ': ' if where else ''}{error.message}.")
