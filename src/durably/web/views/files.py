"""Files in messages: which of them a page shows as images, and what it says of the others. Pure.

Only raster images that are what they say, and that came along in the message; nothing is loaded
from elsewhere.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from durably.web.views.values import fields_of

INLINE_CHARS = 1_400_000
"""Base64 characters of an image that is shown in the page: about a megabyte."""

_SIGNATURES = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}


@dataclass(frozen=True, slots=True)
class File:
    """A file in a message.

    Attributes:
        source: its ``data:`` address, of an image that is shown; else None.
        link: its address on the web, where it has one.
        label: what it is, such as ``image/png, 12 KB``.
    """

    source: str | None
    link: str | None
    label: str
    kind: str = "file"


def is_file(item: object) -> bool:
    """True of what pydantic-ai calls binary content, or an image, document ... by its address."""
    kind = fields_of(item).get("kind")
    return kind == "binary" or (isinstance(kind, str) and kind.endswith("-url"))


def file_from(fields: Mapping[str, Any]) -> File:
    """A file as its JSON says it is."""
    if isinstance(url := fields.get("url"), str):
        if url.startswith("data:"):
            media_type, _, data = url.removeprefix("data:").partition(";base64,")
            return _embedded(media_type, data)
        web = url.startswith(("https://", "http://"))
        return File(None, url if web else None, f"{fields.get('kind')}: {url[:200]}")
    return _embedded(str(fields.get("media_type")), fields.get("data"))


def image_bytes(media_type: str, data: object) -> bytes | None:
    """The bytes of a raster image that is what it says; None of anything else."""
    if media_type not in _SIGNATURES or not isinstance(data, str):
        return None
    try:
        # pydantic writes the URL-safe alphabet.
        raw = base64.b64decode(data.translate(_STANDARD), validate=True)
    except (binascii.Error, ValueError):
        return None
    if not raw.startswith(_SIGNATURES[media_type]):
        return None
    return None if media_type == "image/webp" and raw[8:12] != b"WEBP" else raw


def _embedded(media_type: str, data: object) -> File:
    size = len(data) * 3 // 4 if isinstance(data, str) else 0
    label = f"{media_type[:100]}, {_bytes(size)}"
    if not isinstance(data, str) or len(data) > INLINE_CHARS:
        return File(None, None, label)
    if image_bytes(media_type, data) is None:
        return File(None, None, label)
    return File(f"data:{media_type};base64,{data.translate(_STANDARD)}", None, label)


_STANDARD = str.maketrans("-_", "+/")


def _bytes(size: int) -> str:
    for unit, length in (("MB", 1_000_000), ("KB", 1000)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size} bytes"
