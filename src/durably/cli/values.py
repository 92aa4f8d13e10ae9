"""What people type as option values, read into Python: durations, JSON, queues, prompts.

Owns the sentence for each way in which a value can be wrong.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any, cast

from durably.cli.exits import Refused

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*", re.ASCII)


def duration(option: str, text: str) -> float:
    """Seconds in ``30``, ``30s``, ``5m``, ``2h``, ``30d`` or ``1w``.

    Raises:
        Refused: it is none of these.
    """
    match = _DURATION.fullmatch(text)
    if match is None or len(text) > 20:
        raise Refused(f"{option} {text!r}: write a duration such as 30, 30s, 5m, 2h, 30d or 1w.")
    return float(match[1]) * _UNITS[match[2]]


def json_value(option: str, text: str) -> Any:
    """Any JSON value.

    Raises:
        Refused: it is not JSON; says where, and how to write a string.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        hint = f" A string is written with its quotes: '{json.dumps(text)}'." if _word(text) else ""
        raise Refused(f"{option} is not JSON: {error}.{hint}") from error
    except RecursionError:
        raise Refused(f"{option} is nested too deeply.") from None


def json_object(option: str, text: str | None) -> dict[str, Any] | None:
    """A JSON object, or None where nothing was given.

    Raises:
        Refused: it is not JSON, or not an object.
    """
    if text is None:
        return None
    value = json_value(option, text)
    if not isinstance(value, dict):
        raise Refused(f'{option} must be a JSON object, such as {{"order": 42}}.')
    return cast("dict[str, Any]", value)


def budget_limits(option: str, texts: list[str]) -> dict[str, Any]:
    """A budget as JSON has it, from ``usd=1.50,requests=20`` or several such texts.

    Raises:
        Refused: one of them is none; what may be limited, and how far, is checked later.
    """
    limits: dict[str, Any] = {}
    for text in texts:
        for part in filter(None, map(str.strip, text.split(","))):
            name, _, value = part.partition("=")
            name = name.strip().replace("-", "_")
            if name not in ("requests", "tokens", "tool_calls", "usd", "on_limit"):
                raise Refused(
                    f"{option} {part!r}: write requests=20, tokens=100000, tool_calls=10, usd=1.50 "
                    "or on_limit=discard; several with commas."
                )
            if name in ("usd", "on_limit"):
                limits[name] = value.strip()
            elif re.fullmatch(r"[0-9]{1,15}", value.strip()):
                limits[name] = int(value)
            else:
                raise Refused(f"{option} {part!r}: {name} is a whole number from 0.")
    return limits


def queue_limits(options: list[str], default: int) -> dict[str, int]:
    """How many runs of each queue at once, from ``name=20`` or ``name``.

    Raises:
        Refused: a number is none, or below 1.
    """
    limits: dict[str, int] = {}
    for option in options:
        name, equals, number = option.rpartition("=")
        if not equals:
            name, number = option, str(default)
        if not name.strip() or not re.fullmatch(r"[1-9][0-9]{0,5}", number):
            raise Refused(f"--queue {option!r}: write name=20, or just the name.")
        limits[name.strip()] = int(number)
    return limits


def queue_limit(text: str) -> int | None:
    """How many runs of a queue at once; None for ``default``, each worker's own limit.

    Raises:
        Refused: it is neither ``default`` nor a number from 1.
    """
    if text == "default":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise Refused(
            f"LIMIT {text!r}: write a number from 1, or default; to stop a queue, pause it."
        )
    return int(text)


def prompt_text(prompt: str) -> str:
    """The prompt; ``-`` reads it from stdin, without the newline at its end.

    Raises:
        Refused: it is empty, or not UTF-8.
    """
    if prompt == "-":
        try:
            prompt = sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise Refused(f"The prompt on stdin is not UTF-8: {error.reason}.") from error
    if not prompt.strip():
        raise Refused("The prompt is empty.")
    return prompt


def _word(text: str) -> bool:
    return len(text) < 60 and not text.startswith(("{", "[", '"'))


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
