"""durably: durable runs of pydantic-ai agents.

Owns the public names. They are loaded when they are first used: importing durably imports no
database driver and no agent framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durably import effects, errors, hooks
    from durably.agents import history, human, live
    from durably.agents.child import run_child
    from durably.agents.draft import Draft
    from durably.agents.registry import RunInfo
    from durably.app import Durably
    from durably.budgets import Budget, SharedBudget
    from durably.dispatch.oban import RunAgent
    from durably.errors import (
        ChildFailed,
        ConfigError,
        CorruptRecord,
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
        OutcomeUnknown,
        ResultNotSerializable,
        RunCancelled,
        RunDiscarded,
        RunFailed,
        RunNotFound,
        RunSuspended,
        SchemaError,
        SignalTimeout,
        StepFailed,
        ThreadBusy,
        ToolExited,
        TransactionEnded,
        TransitionRefused,
        UnknownAgent,
    )
    from durably.execution.call import Call, current_call
    from durably.execution.inside import sleep, step, wait_for_signal
    from durably.lifecycle import EffectState, RunState
    from durably.prices import Price
    from durably.records import (
        Action,
        Attempt,
        Decision,
        Effect,
        Event,
        InboxItem,
        Readiness,
        RunRecord,
        Signal,
        Statistics,
        Timeline,
        Waiting,
        WorkerRecord,
    )
    from durably.retry import RetryPolicy
    from durably.run import Run
    from durably.searching import BulkResult, RunOutcome, RunsPage

__version__ = "0.1.0"

_HOMES = {
    "Durably": "durably.app",
    "Run": "durably.run",
    "RunInfo": "durably.agents.registry",
    "Call": "durably.execution.call",
    "current_call": "durably.execution.call",
    "run_child": "durably.agents.child",
    "sleep": "durably.execution.inside",
    "step": "durably.execution.inside",
    "wait_for_signal": "durably.execution.inside",
    "Draft": "durably.agents.draft",
    "RunAgent": "durably.dispatch.oban",
    "Budget": "durably.budgets",
    "SharedBudget": "durably.budgets",
    "Price": "durably.prices",
    "RetryPolicy": "durably.retry",
    "RunState": "durably.lifecycle",
    "EffectState": "durably.lifecycle",
    "Attempt": "durably.records",
    "Decision": "durably.records",
    "Effect": "durably.records",
    "Event": "durably.records",
    "InboxItem": "durably.records",
    "RunRecord": "durably.records",
    "Signal": "durably.records",
    "Waiting": "durably.records",
    "Action": "durably.records",
    "Readiness": "durably.records",
    "Statistics": "durably.records",
    "Timeline": "durably.records",
    "WorkerRecord": "durably.records",
    "RunsPage": "durably.searching",
    "RunOutcome": "durably.searching",
    "BulkResult": "durably.searching",
}

_MODULES = {
    "effects": "durably.effects",
    "errors": "durably.errors",
    "history": "durably.agents.history",
    "hooks": "durably.hooks",
    "human": "durably.agents.human",
    "live": "durably.agents.live",
}

__all__ = [
    "Action",
    "Attempt",
    "Budget",
    "BulkResult",
    "Call",
    "ChildFailed",
    "ConfigError",
    "CorruptRecord",
    "Decision",
    "Draft",
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
    "OutcomeUnknown",
    "Price",
    "Readiness",
    "ResultNotSerializable",
    "RetryPolicy",
    "Run",
    "RunAgent",
    "RunCancelled",
    "RunDiscarded",
    "RunFailed",
    "RunInfo",
    "RunNotFound",
    "RunOutcome",
    "RunRecord",
    "RunState",
    "RunSuspended",
    "RunsPage",
    "SchemaError",
    "SharedBudget",
    "Signal",
    "SignalTimeout",
    "Statistics",
    "StepFailed",
    "ThreadBusy",
    "Timeline",
    "ToolExited",
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
    "live",
    "run_child",
    "sleep",
    "step",
    "wait_for_signal",
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
