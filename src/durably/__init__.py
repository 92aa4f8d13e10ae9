"""durably: durable runs of pydantic-ai agents.

Owns the public names. They are loaded when they are first used: importing durably imports no
database driver and no agent framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durably import effects, errors, hooks
    from durably.agents import history, human
    from durably.agents.registry import RunInfo
    from durably.app import Durably
    from durably.dispatch.oban import RunAgent
    from durably.errors import (
        ConfigError,
        DurablyError,
        EffectNotFound,
        HistoryError,
        KeyConflict,
        LeaseLost,
        LedgerClosed,
        LedgerCorrupt,
        LedgerError,
        LedgerMoved,
        LedgerUnavailable,
        NotDone,
        ResultNotSerializable,
        RunCancelled,
        RunDiscarded,
        RunFailed,
        RunNotFound,
        RunSuspended,
        SchemaError,
        TransactionEnded,
        TransitionRefused,
        UnknownAgent,
    )
    from durably.execution.call import Call, current_call
    from durably.lifecycle import EffectState, RunState
    from durably.records import (
        Attempt,
        Decision,
        Effect,
        Event,
        InboxItem,
        RunRecord,
        Waiting,
        WorkerRecord,
    )
    from durably.retry import RetryPolicy
    from durably.run import Run

__version__ = "0.1.0"

_HOMES = {
    "Durably": "durably.app",
    "Run": "durably.run",
    "RunInfo": "durably.agents.registry",
    "Call": "durably.execution.call",
    "current_call": "durably.execution.call",
    "RunAgent": "durably.dispatch.oban",
    "RetryPolicy": "durably.retry",
    "RunState": "durably.lifecycle",
    "EffectState": "durably.lifecycle",
    "Attempt": "durably.records",
    "Decision": "durably.records",
    "Effect": "durably.records",
    "Event": "durably.records",
    "InboxItem": "durably.records",
    "RunRecord": "durably.records",
    "Waiting": "durably.records",
    "WorkerRecord": "durably.records",
}

_MODULES = {
    "effects": "durably.effects",
    "errors": "durably.errors",
    "history": "durably.agents.history",
    "hooks": "durably.hooks",
    "human": "durably.agents.human",
}

__all__ = [
    "Attempt",
    "Call",
    "ConfigError",
    "Decision",
    "Durably",
    "DurablyError",
    "Effect",
    "EffectNotFound",
    "EffectState",
    "Event",
    "HistoryError",
    "InboxItem",
    "KeyConflict",
    "LeaseLost",
    "LedgerClosed",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerMoved",
    "LedgerUnavailable",
    "NotDone",
    "ResultNotSerializable",
    "RetryPolicy",
    "Run",
    "RunAgent",
    "RunCancelled",
    "RunDiscarded",
    "RunFailed",
    "RunInfo",
    "RunNotFound",
    "RunRecord",
    "RunState",
    "RunSuspended",
    "SchemaError",
    "TransactionEnded",
    "TransitionRefused",
    "UnknownAgent",
    "Waiting",
    "WorkerRecord",
    "current_call",
    "effects",
    "errors",
    "history",
    "hooks",
    "human",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in __all__:
        raise AttributeError(f"module 'durably' has no attribute {name!r}")
    # What has no other home is an exception.
    return getattr(importlib.import_module(_HOMES.get(name, "durably.errors")), name)


def __dir__() -> list[str]:
    return __all__
