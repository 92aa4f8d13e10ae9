"""What the stored responses of a run cost, as far as pydantic-ai knows their prices.

Owns the sum; prices are genai-prices', reached through pydantic-ai.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from pydantic_ai.messages import ModelResponse

from durably.agents.history import message_from_json
from durably.errors import HistoryError
from durably.records import Cost, StoredMessage


def cost_of(messages: Sequence[StoredMessage]) -> Cost:
    """The price of every response that has one; the others are counted."""
    total, unpriced = Decimal(0), 0
    for message in messages:
        if message.kind != "response":
            continue
        price = _price_of(message)
        if price is None:
            unpriced += 1
        else:
            total += price
    return Cost(total, unpriced)


def _price_of(message: StoredMessage) -> Decimal | None:
    try:
        response = message_from_json(message.body, f"message {message.seq}")
        if not isinstance(response, ModelResponse):
            return None
        return response.cost().total_price
    except (HistoryError, LookupError, AssertionError, ValueError):
        # An unknown model, no model name, unmeasured usage, a row of another version: no price.
        return None
