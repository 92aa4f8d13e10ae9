"""What responses cost: the application's own prices, else those that pydantic-ai knows.

Owns which price a response has, and which models have none; pydantic-ai's are genai-prices'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.usage import RequestUsage

from durably.agents.history import message_from_json
from durably.errors import HistoryError
from durably.prices import NANO, Price, nanousd
from durably.records import Cost, StoredMessage


class Prices:
    """The prices that an application declares, before pydantic-ai's own.

    Args:
        own: by ``provider:model`` or ``model``.
    """

    def __init__(self, own: Mapping[str, Price] | None = None) -> None:
        self._own = own or {}
        self._known: set[tuple[str, str | None, str]] = set()

    def price_of(self, response: ModelResponse, asked: Model | None = None) -> int | None:
        """What a response cost, in billionths of a US dollar; None if nobody knows.

        Args:
            asked: the model that was asked. It may answer under a longer name than the one that
                it was given, and is priced, under.
        """
        usage = response.usage
        if not usage.has_values() or getattr(usage, "unmeasured_requests", 0):
            return None  # Not measured: what it cost is not nothing.
        own = self._own_price(self._names_of(response, asked))
        if own is not None:
            read = usage.cache_read_tokens
            return nanousd(own.of(usage.input_tokens, usage.output_tokens, read))
        # Newer versions of pydantic-ai have found it already, or were told it by their gateway.
        cost: Decimal | None = getattr(usage, "cost", None)
        return nanousd(_library_price(response) if cost is None else cost)

    def unpriced(self, model: Model) -> str | None:
        """The name of a model that may be asked here and has no known price; None if all have."""
        return next((_name(m) for m in _models_in(model) if not self._knows(m)), None)

    def _knows(self, model: Model) -> bool:
        if self._own_price(_names(model.system, model.model_name)) is not None:
            return True
        key = (model.system, _base_url(model), model.model_name)
        if key not in self._known:
            trial = ModelResponse(
                parts=[],
                usage=RequestUsage(input_tokens=1, output_tokens=1),
                model_name=model.model_name,
                provider_name=model.system,
                provider_url=_base_url(model),
            )
            if _library_price(trial) is None:
                return False
            self._known.add(key)
        return True

    def _names_of(self, response: ModelResponse, asked: Model | None) -> Iterator[str]:
        """The names under which a response may be priced, most exact first."""
        answered, provider = response.model_name, response.provider_name
        if not answered:
            return
        yield from _names(provider, answered)
        if provider is None:  # Whoever it was.
            yield from (name for name in self._own if name.endswith(f":{answered}"))
        for model in () if asked is None else _models_in(asked):
            # Only one that this is a longer name of: what a router chose has a price of its own.
            if provider in (None, model.system) and answered.startswith(model.model_name):
                yield from _names(model.system, model.model_name)

    def _own_price(self, names: Iterator[str]) -> Price | None:
        if not self._own:
            return None
        return next((self._own[name] for name in names if name in self._own), None)


def cost_of(messages: Sequence[StoredMessage], prices: Prices | None = None) -> Cost:
    """The price of every response that has one; the others are counted."""
    prices = prices or Prices()
    total, unpriced = 0, 0
    for message in messages:
        if message.kind != "response":
            continue
        price = _stored_price(message, prices)
        if price is None:
            unpriced += 1
        else:
            total += price
    return Cost(Decimal(total) / NANO, unpriced)


def response_name(response: ModelResponse) -> str:
    """The model that answered, as an application's own price names it."""
    provider = f"{response.provider_name}:" if response.provider_name else ""
    return f"{provider}{response.model_name or 'unknown'}"


def _stored_price(message: StoredMessage, prices: Prices) -> int | None:
    try:
        response = message_from_json(message.body, f"message {message.seq}")
    except HistoryError:
        return None  # A row of another version.
    return prices.price_of(response) if isinstance(response, ModelResponse) else None


def _library_price(response: ModelResponse) -> Decimal | None:
    try:
        return response.cost().total_price
    except (LookupError, AssertionError, ValueError):
        # An unknown model, no model name, usage that cannot be.
        return None


def _names(provider: str | None, model: str) -> Iterator[str]:
    if provider:
        yield f"{provider}:{model}"
    yield model


def _models_in(model: Model) -> Iterator[Model]:
    """The models that may answer in the place of one."""
    if isinstance(model, WrapperModel):
        yield from _models_in(model.wrapped)
    elif isinstance(model, FallbackModel):
        for inner in model.models:
            yield from _models_in(inner)
    else:
        yield model


def _name(model: Model) -> str:
    return f"{model.system}:{model.model_name}"


def _base_url(model: Model) -> str | None:
    try:
        return model.base_url
    except (AttributeError, UserError):
        return None  # Some models know theirs only once they are connected.
