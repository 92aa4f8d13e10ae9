"""Text that models, tools and strangers wrote, as a page may show it: nothing in it stays hidden.

Pure. What a browser would obey but not draw (marks that reorder or hide text) becomes a sign;
HTML is the templates' to escape.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with a sign in the place of each character that would be obeyed or not be seen."""
    return _UNSAFE.sub(_sign, text)


def escaped(json_text: str) -> str:
    """The same for JSON, where every character may be written as an escape: nothing is lost."""
    return _UNSAFE.sub(_escape, json_text)


def one_line(text: str, limit: int) -> str:
    """The text on one line, cut to ``limit`` characters."""
    line = " ".join(text[: limit * 4 + 100].split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _sign(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"‹U+{code:04X}›"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code > 0xFFFF:
        high, low = divmod(code - 0x10000, 0x400)
        return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
    return f"\\u{code:04x}"
