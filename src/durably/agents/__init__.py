"""The only part that imports pydantic-ai; its modules are loaded when they are first used.

So that what only looks at runs (``durably runs``, ``durably cancel``) need not wait for it:
``from durably import agents`` and ``agents.codec.decode_output(...)``.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from durably.agents import (
        answers,
        codec,
        draft,
        earlier,
        exact,
        history,
        live,
        pricing,
        recorded,
        runner,
        ui,
    )

_LAZY = (
    "answers", "codec", "draft", "earlier", "exact", "history", "live", "pricing", "recorded",
    "runner", "ui",
)  # fmt: skip

__all__ = [
    "answers",
    "codec",
    "draft",
    "earlier",
    "exact",
    "history",
    "live",
    "pricing",
    "recorded",
    "runner",
    "ui",
]


def __getattr__(name: str) -> ModuleType:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
