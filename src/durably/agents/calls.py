"""A tool call of the model's, as the ledger records it.

Owns what is written of its arguments; which call it is is `positions`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_ai.messages import ToolCallPart
from pydantic_core import to_json

from durably.effects import EffectKind, EffectPolicy
from durably.execution.journal import Journal
from durably.ledger.written import ToolCall
from durably.records import CallPosition


def recorded_call(
    journal: Journal,
    position: CallPosition,
    call: ToolCallPart,
    args: Mapping[str, Any] | None,
    policy: EffectPolicy,
) -> ToolCall:
    """The call at this position, under this policy.

    Args:
        args: the validated arguments, for a call in which the model wrote none.
    """
    return ToolCall(
        position=position,
        tool_name=call.tool_name,
        tool_call_id=call.tool_call_id,
        args=_args_text(call, args),
        policy=policy.kind,
        on_doubt=on_doubt(policy),
        idempotency_key=journal.idempotency_key(position),
    )


def on_doubt(policy: EffectPolicy) -> str | None:
    """What the ledger says of a policy's doubts: only a ``once`` call is ever in any."""
    return policy.on_doubt if policy.kind is EffectKind.ONCE else None


def _args_text(call: ToolCallPart, args: Mapping[str, Any] | None) -> str:
    """The arguments as the model wrote them; validated ones where it wrote none."""
    if isinstance(call.args, str):
        return call.args
    return to_json(call.args or args or {}, fallback=str).decode()
