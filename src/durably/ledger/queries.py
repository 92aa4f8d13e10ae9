"""Loads the named statements from the ``.sql`` files beside this module.

Owns the file format: ``-- name: claim_run`` and, where databases differ, ``(postgres)``; where they
do in a few words, ``/*postgres: FOR UPDATE*/`` within the text of all; where one statement holds
another, ``/*statement record_outcome*/``.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)(?: \((\w+)\))?$", re.MULTILINE)

_SOME = re.compile(r"/\*(\w+): (.*?)\*/")

_STATEMENT = re.compile(r"/\*statement (\w+)\*/")


@cache
def load_queries(dialect: str) -> dict[str, str]:
    """Every statement for one database, by name.

    A statement without a tag serves all databases; one tagged with ``dialect`` wins over it.

    Raises:
        ValueError: two statements share a name and tag.
        KeyError: a statement is to hold one that is not there.
    """
    common: dict[str, str] = {}
    special: dict[str, str] = {}
    folder = files("durably.ledger").joinpath("sql")
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if not entry.name.endswith(".sql"):
            continue
        for name, tag, text in _statements(entry.read_text("utf-8")):
            if tag not in ("", dialect):
                continue
            text = _SOME.sub(lambda found: found[2] if found[1] == dialect else "", text)
            target = special if tag else common
            if name in target:
                raise ValueError(f"{entry.name}: statement {name!r} is defined twice.")
            target[name] = text
    found = common | special
    return {
        name: _STATEMENT.sub(lambda within: found[within[1]], text) for name, text in found.items()
    }


def _statements(source: str) -> list[tuple[str, str, str]]:
    parts = _NAME.split(source)
    return [
        (parts[i], parts[i + 1] or "", parts[i + 2].strip().removesuffix(";"))
        for i in range(1, len(parts), 3)
    ]
