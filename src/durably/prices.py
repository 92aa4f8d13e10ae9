"""Prices: what a model's tokens cost, and US dollars as numbers that add up exactly.

Pure arithmetic; which response has which price is the agents'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import cast

from durably.errors import ConfigError

type Dollars = Decimal | float | int | str

NANO = 1_000_000_000
"""Money is counted in billionths of a US dollar, as whole numbers, so that sums stay exact."""

MAX_USD = 10**9


@dataclass(frozen=True, slots=True, init=False)
class Price:
    """What a model's tokens cost, in US dollars per million.

    Attributes:
        input: input tokens; what is written to a cache costs as much.
        output: output tokens.
        cached_input: input tokens that the provider read from its cache; None: as other input.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None

    def __init__(
        self, *, input: Dollars, output: Dollars, cached_input: Dollars | None = None
    ) -> None:
        """Check the prices.

        Raises:
            ConfigError: one of them is no amount from 0.
        """
        object.__setattr__(self, "input", dollars("input", input))
        object.__setattr__(self, "output", dollars("output", output))
        cached = None if cached_input is None else dollars("cached_input", cached_input)
        object.__setattr__(self, "cached_input", cached)

    def of(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> Decimal:
        """What so many tokens cost, in US dollars; the cached ones are among the input."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = max(0, input_tokens - cached_tokens)
        total = fresh * self.input + cached_tokens * cached + output_tokens * self.output
        return total / 1_000_000


def checked_prices(prices: Mapping[str, Price]) -> dict[str, Price]:
    """An application's own prices, by ``provider:model`` or ``model``.

    Raises:
        ConfigError: one of them is no price, or has no name.
    """
    for name, price in cast("Iterable[tuple[object, object]]", prices.items()):
        if not isinstance(name, str) or not name.strip() or not isinstance(price, Price):
            raise ConfigError(
                f"prices={{{name!r}: ...}}: write 'provider:model' or 'model', and a "
                "durably.Price(input=..., output=...) in dollars per million tokens."
            )
    return dict(prices)


def dollars(name: str, value: Dollars) -> Decimal:
    """An amount in US dollars, to the billionth.

    Raises:
        ConfigError: it is none, or below 0.
    """
    problem = ConfigError(f"{name}={value!r}: from 0 to {MAX_USD:,} US dollars, such as 1.50.")
    # A bool is an int; what JSON or a caller without types gives may be anything.
    given = cast("object", value)
    if isinstance(given, bool) or not isinstance(given, Decimal | float | int | str):
        raise problem
    try:
        # By way of text: 0.1 is meant as it is written.
        amount = value if isinstance(value, Decimal) else Decimal(str(value).strip())
    except InvalidOperation:
        raise problem from None
    if not amount.is_finite() or not 0 <= amount <= MAX_USD:
        raise problem
    return amount.quantize(Decimal(1) / NANO, ROUND_HALF_EVEN).normalize()


def nanousd(amount: Decimal | None) -> int | None:
    """Dollars in billionths."""
    return None if amount is None else int((amount * NANO).to_integral_value(ROUND_HALF_EVEN))


def usd_text(nano: int | None) -> str:
    """Billionths as exact dollars, such as ``1.5``."""
    return f"{(Decimal(nano or 0) / NANO).normalize():f}"


def usd_shown(nano: int) -> str:
    """Billionths as people read them: ``$1.50``, with as many digits as they need."""
    whole, _, digits = usd_text(nano).partition(".")
    return f"${int(whole):,}.{digits:0<2}"
