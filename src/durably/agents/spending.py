"""What one attempt spends: counted response by response, and held against the budgets.

Owns when a budget is looked at and how the attempt then ends; sums over runs are the ledger's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.usage import RunUsage

from durably.agents.pricing import Prices, response_name
from durably.agents.usage import usage_to_json
from durably.budgets import FROM_CHILDREN, Budget, SharedBudget, Spent, UsedUp
from durably.execution.journal import Journal
from durably.execution.outcome import AttemptEnds, Discarded, Suspended


@dataclass
class Spending:
    """What the run of one attempt has spent so far, over all its attempts.

    Attributes:
        own: the run's own limits.
        earlier: the run's own responses, of earlier attempts.
        cost_nanousd: what its responses cost, and its child runs, as far as prices are known.
        from_children: the part of its usage and cost that child runs have spent. They count for
            themselves where budgets are shared; the run's own budget counts them too.
        unpriced: the model of a response of this attempt that has no known price.
    """

    journal: Journal
    prices: Prices
    own: Budget
    earlier: Sequence[ModelResponse] = ()
    cost_nanousd: int = 0
    from_children: Spent = field(default_factory=Spent)
    unpriced: str | None = None
    _own_limited: bool = field(init=False)
    _shared: list[SharedBudget] = field(default_factory=list[SharedBudget])
    _earlier_priced: bool = False

    def __post_init__(self) -> None:
        self._own_limited = self.own.limited

    @classmethod
    def of(
        cls,
        journal: Journal,
        prices: Prices,
        declared: Budget,
        earlier: Sequence[ModelResponse],
    ) -> Spending:
        """What earlier attempts have spent, and what this one may.

        Args:
            declared: the agent's budget; what the run was given wins.
        """
        run = journal.run
        return cls(
            journal,
            prices,
            declared.overlaid(run.budget),
            earlier,
            run.cost_nanousd,
            Spent.from_json(run.usage.get(FROM_CHILDREN)),
        )

    def usage_json(self, usage: RunUsage) -> str:
        """Usage as it is stored with the run."""
        return usage_to_json(usage, self.from_children)

    def pay(self, response: ModelResponse, asked: Model) -> None:
        """Count what a response cost that is about to be saved."""
        price = self.prices.price_of(response, asked)
        if price is None:
            self.unpriced = self.unpriced or response_name(response)
        else:
            self.cost_nanousd += price

    def adopt(self, usage: RunUsage, cost_nanousd: int) -> None:
        """Count what a child run has spent, which counts for itself where budgets are shared."""
        spent = Spent(usage.requests, usage.total_tokens, usage.tool_calls, cost_nanousd)
        self.from_children += spent
        self.cost_nanousd += cost_nanousd

    async def check_request(self, usage: RunUsage, asked: Model) -> None:
        """Called before each model request.

        Raises:
            AttemptEnds: a budget is used up, or is in dollars and the model has no known price.
        """
        self._shared = await self.journal.shared_budgets()
        if not self._limited:
            return
        self._check_prices(asked)
        if self._limited_in_dollars and (name := self.prices.unpriced(asked)) is not None:
            _fail_closed(name)
        self._end_if(self._used_up(usage))

    async def check_response(
        self, usage: RunUsage, asked: Model, calls: int, *, replayed: bool
    ) -> None:
        """Called once a response is saved, before any of its calls is made.

        Args:
            calls: how many tool calls it asks for.
            replayed: it is an earlier attempt's, which may have ended before it was checked.

        Raises:
            AttemptEnds: the calls are more than a budget allows, or a budget is in dollars and the
                response has no known price.
        """
        if replayed or (calls and any(b.limits.tool_calls is not None for b in self._shared)):
            self._shared = await self.journal.shared_budgets()
        if not self._limited:
            return
        self._check_prices(asked)
        if calls:
            self._end_if(self._used_up_by_calls(usage, calls))

    @property
    def _limited(self) -> bool:
        return self._own_limited or bool(self._shared)

    @property
    def _limited_in_dollars(self) -> bool:
        return self.own.usd is not None or any(b.limits.usd is not None for b in self._shared)

    def _check_prices(self, asked: Model) -> None:
        """Refuse to go on under a dollar budget if part of what was spent is not known.

        Also what earlier attempts were answered before there was such a budget, or the price.
        """
        if not self._limited_in_dollars:
            return
        if self.unpriced is not None:
            _fail_closed(self.unpriced)
        if self._earlier_priced:
            return
        run = self.journal.run
        total = Spent.from_json(run.usage.get(FROM_CHILDREN)).nanousd
        for response in self.earlier:
            price = self.prices.price_of(response, asked)
            if price is None:
                _fail_closed(response_name(response))
            total += price
        self.cost_nanousd += max(0, total - run.cost_nanousd)
        self._earlier_priced = True

    def _used_up(self, usage: RunUsage) -> Iterator[UsedUp]:
        spent = Spent(usage.requests, usage.total_tokens, usage.tool_calls, self.cost_nanousd)
        for scope, name, limits, so_far in self._budgets(spent):
            if (what := limits.used_up(so_far)) is not None:
                limit = limits.limit(what) or 0
                yield UsedUp(scope, name, what, limit, so_far.of(what), 0, limits.on_limit)

    def _used_up_by_calls(self, usage: RunUsage, calls: int) -> Iterator[UsedUp]:
        for scope, name, limits, so_far in self._budgets(Spent(tool_calls=usage.tool_calls)):
            limit, made = limits.tool_calls, so_far.tool_calls
            if limit is not None and made + calls > limit:
                yield UsedUp(scope, name, "tool_calls", limit, made, calls, limits.on_limit)

    def _budgets(self, own: Spent) -> Iterator[tuple[str, str, Budget, Spent]]:
        yield "run", self.journal.run.key, self.own, own
        for budget in self._shared:
            yield budget.scope, budget.name, budget.limits, budget.spent

    def _end_if(self, used_up: Iterator[UsedUp]) -> None:
        # Of several, one that is not to be waited for.
        found = sorted(used_up, key=lambda budget: budget.on_limit != "discard")
        if not found:
            return
        first = found[0]
        self.journal.note("budget_used_up", **first.to_json())
        if first.on_limit == "discard":
            raise AttemptEnds(
                Discarded(f"It would spend more than {first.whose()} allows: {first.describe()}.")
            )
        raise AttemptEnds(Suspended("budget", first.to_json()))


def _fail_closed(name: str) -> NoReturn:
    raise AttemptEnds(
        Discarded(
            f"There is a budget in US dollars, and nobody knows what model {name!r} costs: say it "
            f"with Durably(prices={{{name!r}: durably.Price(input=..., output=...)}}), in dollars "
            "per million tokens, then retry the run."
        )
    )
