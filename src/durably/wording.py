"""What an error says, as text that every database takes and a page can show.

Owns making it from any exception, also from one whose own text cannot be made; pure.
"""

from __future__ import annotations

import traceback

MAX_CHARS = 10_000
"""What is kept of an error's text: a client may put a whole response into it."""

MAX_TRACEBACK_CHARS = 100_000
"""What is kept of a traceback."""


def text_of(error: BaseException) -> str:
    """What the error says; of a very long text its beginning and its end."""
    try:
        text = str(error)
    except BaseException as broken:  # It is the application's code: it may raise anything.
        return f"(its text could not be made: {type(broken).__name__})"
    return storable(text, MAX_CHARS)


def worded(error: BaseException) -> str:
    """``ValueError: what it says``, as `text_of` has it."""
    return f"{type(error).__name__}: {text_of(error)}"


def traced(error: BaseException) -> str:
    """Its traceback, and those of the errors behind it; of a very long one beginning and end."""
    try:
        lines = traceback.format_exception(error)
    except Exception:  # An attribute that the traceback quotes is not what it should be.
        lines = [*traceback.format_tb(error.__traceback__), worded(error), "\n"]
    return storable("".join(lines), MAX_TRACEBACK_CHARS)


def storable(text: str, max_chars: int) -> str:
    """Text without NUL and halves of characters, shortened in the middle."""
    if len(text) > max_chars:
        left_out = len(text) - max_chars
        half = max_chars // 2
        text = f"{text[:half]} … ({left_out} characters left out) … {text[-half:]}"
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
