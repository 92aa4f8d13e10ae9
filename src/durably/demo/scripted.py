"""A model without a network: rules that read the ticket and the tools' results.

Owns one turn of the conversation: what to ask for next; what a ticket means is in policy.py.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably.demo import policy

THINKING_SECONDS = 0.3
"""How long a request takes: a crash can fall into it."""


def scripted_model() -> FunctionModel:
    """The model that the demo uses unless it is given another."""
    return FunctionModel(answer, model_name="scripted")


async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """One response: the next tool calls, or the final answer."""
    await asyncio.sleep(THINKING_SECONDS)
    prompt, results = _read(messages)
    number = policy.order_number(prompt)
    if number is not None and "find_order" not in results:
        # Both at once: neither waits for the other.
        return _calls(("find_order", {"number": number}), ("price_list", {}))
    order = results.get("find_order")
    decision = policy.decide(prompt, order, results.get("price_list", {}))
    paying = {"charged": "charge_card", "refunded": "refund"}.get(decision.outcome)
    if paying is not None and paying not in results:
        return _calls((paying, {"order": number, "cents": decision.cents}))
    if paying is not None:
        decision = policy.settle(decision, results[paying])
    if "send_mail" not in results:
        mail = ("send_mail", policy.mail(prompt, decision, order))
        if paying is None or decision.outcome == "answered":
            return _calls(mail)
        return _calls(("book", {"payment_id": results[paying]["payment_id"]}), mail)
    final = {"outcome": decision.outcome, "summary": decision.summary}
    return _calls((info.output_tools[0].name, final))


def _read(messages: list[ModelMessage]) -> tuple[str, dict[str, Any]]:
    """The ticket, and what each tool answered."""
    prompt, results = "", dict[str, Any]()
    for message in messages:
        if not isinstance(message, ModelRequest):
            continue
        for part in message.parts:
            if isinstance(part, UserPromptPart):
                prompt = str(part.content)
            elif isinstance(part, ToolReturnPart):
                results[part.tool_name] = _parsed(part.model_response_str())
    return prompt, results


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _calls(*calls: tuple[str, dict[str, Any]]) -> ModelResponse:
    return ModelResponse(parts=[ToolCallPart(name, args) for name, args in calls])
