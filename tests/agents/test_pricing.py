"""What a run cost: the sum of the known prices, and how many responses have none."""

from datetime import UTC, datetime
from decimal import Decimal

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart
from pydantic_ai.usage import RequestUsage

from durably.agents.history import message_to_json
from durably.agents.pricing import cost_of
from durably.records import Cost, StoredMessage

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def stored(message: ModelMessage) -> StoredMessage:
    return StoredMessage(0, message.kind, 1, message_to_json(message), NOW)


def response(model: str | None, provider: str | None = None) -> StoredMessage:
    usage = RequestUsage(input_tokens=1_000_000, output_tokens=100_000)
    return stored(
        ModelResponse(
            parts=[TextPart("x")],
            usage=usage,
            model_name=model,
            provider_name=provider,
            timestamp=NOW,
        )
    )


def test_prices_of_known_models_are_added() -> None:
    known = response("gpt-4o", "openai")
    one = cost_of([stored(ModelRequest(parts=[])), known])
    assert one.usd > 0
    assert cost_of([known, known]) == Cost(one.usd * 2, 0)


def test_responses_without_a_price_are_counted() -> None:
    damaged = StoredMessage(0, "response", 1, "{oops", NOW)
    assert cost_of([response("scripted"), response(None), damaged]) == Cost(Decimal(0), 3)
