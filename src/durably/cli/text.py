"""Text that models, tools and strangers wrote, made safe and short enough for a terminal.

Pure. Nothing is hidden: what a terminal would obey is shown as a sign instead.
"""

from __future__ import annotations

import re
from datetime import timedelta

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
"""Escape sequences that only colour: tools' output is full of them and they say nothing."""

# C0 and C1 controls but newline and tab, the marks that reorder or hide text, the halves of
# surrogate pairs, and the characters that draw nothing.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)

# Joiners that emoji and several scripts need.
_HARMLESS = {"\u200c", "\u200d"}


def clean(text: str) -> str:
    """The text without anything that a terminal would obey."""
    return _UNSAFE.sub(_sign, _COLOURS.sub("", text.replace("\r\n", "\n")))


def one_line(text: str, limit: int | None = None) -> str:
    """The text cleaned, on one line, and cut to ``limit`` characters."""
    line = " ".join(clean(text if limit is None else text[: limit * 4 + 100]).split())
    if limit is None or len(line) <= limit:
        return line
    return line[: max(1, limit - 1)] + "…"


def shorten(text: str, limit: int | None, lines: int = 40) -> str:
    """The text cleaned and cut to so many characters and lines; says how much was cut.

    Args:
        limit: None: everything.
    """
    if limit is None:
        return clean(text)
    kept = "\n".join(text[:limit].split("\n")[:lines])
    if len(kept) == len(text):
        return clean(text)
    return f"{clean(kept)}… ({len(text) - len(kept):,} more characters; --full shows all)"


def seconds_text(duration: timedelta) -> str:
    """A duration as people say it: 0.3 s, 12 s, 5 min 3 s, 2 h 5 min, 3 d 4 h."""
    seconds = max(0.0, duration.total_seconds())
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, second = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {second} s"
    hours, minute = divmod(minutes, 60)
    return f"{hours} h {minute} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _sign(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _HARMLESS:
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"
