"""The ledger's statements as psycopg, and PostgreSQL itself, read them.

Owns how names and parameters are written; the statements are those of the ``.sql`` files.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from durably.ledger.operations import Statement
from durably.ledger.queries import load_queries

_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_NAME = re.compile(r"(?<![\w.'\":])((?:durably|oban)_\w+)")
_LITERAL = re.compile(r"('(?:[^']|'')*'|--[^\n]*)")
_LAYOUT = re.compile(r"\s+")
_PLACE = re.compile(rb"%%|%\((\w+)\)s")


@cache
def statements(schema: str) -> dict[str, bytes]:
    """Every statement for PostgreSQL, its tables in this schema, its parameters as psycopg's."""
    return {name: _written(text, schema) for name, text in load_queries("postgres").items()}


def _written(text: str, schema: str) -> bytes:
    """The statement with its names qualified and its parameters renamed; literals stay.

    Without its layout: psycopg keeps what it has parsed of texts of up to 4,096 characters, and
    parses longer ones each time.
    """
    parts = _LITERAL.split(text)
    for i in range(0, len(parts), 2):
        part = _LAYOUT.sub(" ", parts[i]).replace("%", "%%")
        part = _NAME.sub(rf'"{schema}".\1', part)
        parts[i] = _PARAMETER.sub(r"%(\1)s", part)
    for i in range(1, len(parts), 2):
        parts[i] = "" if parts[i].startswith("--") else parts[i].replace("%", "%%")
    # From files of this package; the schema's name was checked when the URL was read.
    return "".join(parts).strip().encode()


class Numbered(NamedTuple):
    """A statement as PostgreSQL itself reads it.

    Attributes:
        names: of its parameters: of ``$1`` first.
    """

    text: bytes
    names: tuple[str, ...]


@cache
def numbered(schema: str) -> dict[str, Numbered]:
    """`statements`, without psycopg."""
    return {name: _numbered(text) for name, text in statements(schema).items()}


def _numbered(text: bytes) -> Numbered:
    places: dict[str, int] = {}

    def number(found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            return b"%"
        return b"$%d" % places.setdefault(found[1].decode(), len(places) + 1)

    return Numbered(_PLACE.sub(number, text), tuple(places))


def parameters(statement: Statement, schema: str, *, alone: bool = False) -> dict[str, object]:
    """A statement's parameters; ``:schema`` and ``:alone`` are known to every one."""
    return {**statement.params, "schema": schema, "alone": alone}
