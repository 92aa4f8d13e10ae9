"""Durable runs in the protocols of chat front ends, written by pydantic-ai's own adapters.

Owns what is told of a run, and how a half message is taken back; who asks for it is the web's.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from durably.agents.ui import ag_ui, asking, telling, vercel

__all__ = ["ag_ui", "asking", "telling", "vercel"]


def __getattr__(name: str) -> ModuleType:
    # A protocol is imported by whoever speaks it: each needs a library of its own.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
