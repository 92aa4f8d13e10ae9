"""What a person answers, checked against what they were asked.

Owns the check; writing the decision down, and who may decide, is the ledger's and the caller's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable

from durably.errors import ConfigError
from durably.records import Effect

_jsonschema: Any = jsonschema  # It has no types.
_nowhere: Any = Registry  # Schemas that another refers to are looked up here: there are none.


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


def problems(value: Any, schema: Mapping[str, Any]) -> list[tuple[list[str | int], str]]:
    """What a JSON schema says against a value: where in it, and what; nothing if it fits.

    A schema may come from a model: it can fetch nothing, and one that is none is a problem.
    """
    errors = _jsonschema.exceptions
    try:
        kind = _jsonschema.validators.validator_for(schema)
        kind.check_schema(schema)
        validator = kind(schema, registry=_nowhere())
        found = [errors.best_match([error]) for error in validator.iter_errors(value)]
    except (errors.SchemaError, Unresolvable, RecursionError, re.error) as error:
        reason = " ".join(str(error).split())[:200]
        return [([], f"The schema that it is checked against is none: {reason}.")]
    found.sort(key=lambda error: len(error.absolute_path))
    return [(list(error.absolute_path), f"{error.message}.") for error in found]


def _check(value: Any, schema: Mapping[str, Any], what: str) -> None:
    for path, message in problems(value, schema):
        where = ".".join(map(str, path))
        raise ConfigError(f"{what}: {where + ': ' if where else ''}{message}")
