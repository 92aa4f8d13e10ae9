"""``durably.testing``: what the tests of an application with durable agents are made of.

Owns the public names; they are loaded when they are first used. The fixtures are in
`durably.testing.plugin`, which pytest finds by itself.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durably.boundaries import NAMES as BOUNDARIES
    from durably.boundaries import Boundary
    from durably.testing.asserting import assert_effects, assert_enqueued, refute_enqueued
    from durably.testing.clock import Clock
    from durably.testing.crashing import Crash, crash_at
    from durably.testing.killing import Kill, kill_at
    from durably.testing.ledgers import redirect
    from durably.testing.scripted import Chunks, ScriptedModel, call, chunks, tool_texts
    from durably.testing.working import Drained, drain, inline

_HOMES = {
    "BOUNDARIES": ("durably.boundaries", "NAMES"),
    "Boundary": ("durably.boundaries", "Boundary"),
    "Chunks": ("durably.testing.scripted", "Chunks"),
    "Clock": ("durably.testing.clock", "Clock"),
    "Crash": ("durably.testing.crashing", "Crash"),
    "Drained": ("durably.testing.working", "Drained"),
    "Kill": ("durably.testing.killing", "Kill"),
    "ScriptedModel": ("durably.testing.scripted", "ScriptedModel"),
    "assert_effects": ("durably.testing.asserting", "assert_effects"),
    "assert_enqueued": ("durably.testing.asserting", "assert_enqueued"),
    "call": ("durably.testing.scripted", "call"),
    "chunks": ("durably.testing.scripted", "chunks"),
    "crash_at": ("durably.testing.crashing", "crash_at"),
    "drain": ("durably.testing.working", "drain"),
    "inline": ("durably.testing.working", "inline"),
    "kill_at": ("durably.testing.killing", "kill_at"),
    "redirect": ("durably.testing.ledgers", "redirect"),
    "refute_enqueued": ("durably.testing.asserting", "refute_enqueued"),
    "tool_texts": ("durably.testing.scripted", "tool_texts"),
}

__all__ = [
    "BOUNDARIES",
    "Boundary",
    "Chunks",
    "Clock",
    "Crash",
    "Drained",
    "Kill",
    "ScriptedModel",
    "assert_effects",
    "assert_enqueued",
    "call",
    "chunks",
    "crash_at",
    "drain",
    "inline",
    "kill_at",
    "redirect",
    "refute_enqueued",
    "tool_texts",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'durably.testing' has no attribute {name!r}")
    home, attribute = _HOMES[name]
    return getattr(importlib.import_module(home), attribute)


def __dir__() -> list[str]:
    return __all__
