"""Durably with a flaw, to see that a soak finds it: in one worker process, for its whole life.

Owns what is left out; nothing here is ever used but in a test of the soak itself.
"""

from __future__ import annotations

import re

from durably.execution.effects import Effects
from durably.ledger.queries import load_queries
from durably.ledger.written import ToolCall
from durably.records import Effect

FENCE = re.compile(r"(\w+\.)?attempt = :attempt AND (\w+\.)?state = 'executing'")


ORPHANED = re.compile(r"(worker_id NOT IN \([^)]*\(\)\))")


def without_fence() -> None:
    """Any attempt may write a run that executes, also one that has lost it.

    Workers also take what live ones execute, once of each run: the fence would make it no more
    than a waste. It is left in handing back, or runs would go round for ever.
    """
    for dialect in ("sqlite", "postgres"):
        statements = load_queries(dialect)
        for name, sql in statements.items():
            if name == "hand_back_run":
                continue
            statements[name] = FENCE.sub(r":attempt = :attempt AND \2state = 'executing'", sql)
        for name in ("count_orphans", "list_orphans", "rescue_run"):
            statements[name] = ORPHANED.sub(r"(crashes = 0 OR \1)", statements[name])


def without_intent() -> None:
    """A `once` tool starts without a record that it may have."""
    begin = Effects.begin

    async def begin_and_forget(effects: Effects, call: ToolCall) -> Effect:
        effect = await begin(effects, call)
        await effects.withdraw(call, "left out")
        return effect

    Effects.begin = begin_and_forget


FLAWS = {"fence": without_fence, "intent": without_intent}
