"""Budgets: what runs may spend, alone or together, as their owners declare it.

Pure arithmetic and its JSON; what was spent is the ledger's, what happens at a limit the agents'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from shlex import quote
from typing import Any, Literal, cast, get_args

from durably.errors import ConfigError
from durably.prices import Dollars, dollars, nanousd, usd_shown, usd_text

OnLimit = Literal["suspend", "discard"]

MAX_COUNT = 10**15

COUNTED = ("requests", "tokens", "tool_calls")
WHAT = (*COUNTED, "usd")
"""What a budget may limit."""

SCOPES = ("thread", "tag")
"""Whose runs share a budget."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent: of a run over all its attempts, or of all runs that share a budget.

    Attributes:
        tokens: input and output together.
        nanousd: billionths of a US dollar, as far as prices are known.
    """

    requests: int = 0
    tokens: int = 0
    tool_calls: int = 0
    nanousd: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(*(getattr(self, n) + getattr(other, n) for n in _SPENT))

    def since(self, before: Spent) -> Spent:
        """What was spent after ``before``; never less than nothing."""
        return Spent(*(max(0, getattr(self, n) - getattr(before, n)) for n in _SPENT))

    def of(self, what: str) -> int:
        """What was spent of one of `WHAT`, dollars in billionths."""
        return self.nanousd if what == "usd" else getattr(self, what)

    def to_json(self) -> dict[str, int]:
        """Only what is not zero."""
        return {name: value for name in _SPENT if (value := getattr(self, name))}

    @classmethod
    def from_json(cls, data: object) -> Spent:
        """Read what `to_json` wrote; anything else counts as nothing."""
        if not isinstance(data, Mapping):
            return cls()
        given = cast("Mapping[str, Any]", data)
        return cls(*(_count(given.get(name)) for name in _SPENT))


_SPENT = tuple(field.name for field in fields(Spent))

FROM_CHILDREN = "from_children"
"""Where a run's usage keeps the part of it that its child runs have spent."""


def spent_of(usage: Mapping[str, Any], cost_nanousd: int, *, shared: bool = False) -> Spent:
    """What a run has spent, by its stored usage.

    Args:
        shared: without what its child runs have spent: where budgets are shared, each of them
            counts for itself.
    """
    tokens = _count(usage.get("input_tokens")) + _count(usage.get("output_tokens"))
    requests, tool_calls = _count(usage.get("requests")), _count(usage.get("tool_calls"))
    spent = Spent(requests, tokens, tool_calls, cost_nanousd)
    if not shared or FROM_CHILDREN not in usage:
        return spent
    return spent.since(Spent.from_json(usage[FROM_CHILDREN]))


@dataclass(frozen=True, slots=True, init=False)
class Budget:
    """Limits of what may be spent; what is None is not limited.

    Attributes:
        requests: model requests.
        tokens: input and output tokens together.
        tool_calls: calls of tools.
        usd: US dollars, to the billionth.
        on_limit: at a limit, ``"suspend"``: wait until somebody raises it, or ends the run; or
            ``"discard"`` the run.
    """

    requests: int | None
    tokens: int | None
    tool_calls: int | None
    usd: Decimal | None
    on_limit: OnLimit

    def __init__(
        self,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        tool_calls: int | None = None,
        usd: Dollars | None = None,
        on_limit: OnLimit = "suspend",
    ) -> None:
        """Check the limits.

        Raises:
            ConfigError: a limit is no number from 0, or ``on_limit`` is neither.
        """
        counts = {"requests": requests, "tokens": tokens, "tool_calls": tool_calls}
        for name, count in counts.items():
            object.__setattr__(self, name, _checked_count(name, count))
        object.__setattr__(self, "usd", None if usd is None else dollars("usd", usd))
        if on_limit not in get_args(OnLimit):
            raise ConfigError(f"on_limit={on_limit!r}: use 'suspend' or 'discard'.")
        object.__setattr__(self, "on_limit", on_limit)

    @property
    def limited(self) -> bool:
        """True if it limits anything."""
        return any(self.limit(what) is not None for what in WHAT)

    def limit(self, what: str) -> int | None:
        """The limit of one of `WHAT`, dollars in billionths; None where there is none."""
        return nanousd(self.usd) if what == "usd" else getattr(self, what)

    def used_up(self, spent: Spent) -> str | None:
        """Which of its limits leaves no room for another model request; None if all do."""
        for what in ("usd", "tokens", "requests"):
            limit = self.limit(what)
            if limit is not None and spent.of(what) >= limit:
                return what
        return None

    def to_json(self) -> dict[str, Any]:
        """As stored: the limits that there are, dollars as exact text."""
        return limits_json(self) | {"on_limit": self.on_limit}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Budget:
        """Read what `to_json` wrote, or what somebody else wrote like it.

        Raises:
            ConfigError: it holds something else, or what cannot be.
        """
        if unknown := sorted(data.keys() - {*WHAT, "on_limit"}):
            raise ConfigError(
                f"A budget has no {unknown[0]!r}; it has requests, tokens, tool_calls, usd and "
                "on_limit."
            )
        return cls(**{str(name): value for name, value in data.items()})

    def overlaid(self, own: Mapping[str, Any] | None) -> Budget:
        """This budget with the limits of another, as stored, in the place of its own."""
        return Budget.from_json(self.to_json() | dict(own)) if own else self


def limits_json(budget: Budget) -> dict[str, Any]:
    """The limits of a budget that there are, without what happens at them."""
    limits: dict[str, Any] = {name: getattr(budget, name) for name in COUNTED}
    limits["usd"] = None if budget.usd is None else usd_text(nanousd(budget.usd))
    return {name: limit for name, limit in limits.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class SharedBudget:
    """A budget that runs share, and what they have spent of it.

    Attributes:
        scope: ``thread`` or ``tag``: whose runs share it.
        name: which thread or tag.
        spent: since it was first set, by all these runs.
        changed_at: when its limits were set last.
        damage: what of it cannot be read; limits that cannot leave room for nothing.
    """

    scope: str
    name: str
    limits: Budget
    spent: Spent
    changed_at: datetime
    damage: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UsedUp:
    """Which budget leaves no room for what a run would do next.

    Attributes:
        scope: ``run``, ``thread`` or ``tag``.
        name: the thread or tag; the run's key for its own.
        what: one of `WHAT`.
        limit, spent: dollars in billionths.
        wanted: how many tool calls it would make now; 0 for anything but tool calls.
        on_limit: what is declared for it.
    """

    scope: str
    name: str
    what: str
    limit: int
    spent: int
    wanted: int = 0
    on_limit: OnLimit = "suspend"

    def to_json(self) -> dict[str, Any]:
        """As stored with a run that waits for it."""
        limit, spent = (amount(self.what, n) for n in (self.limit, self.spent))
        shown = {"scope": self.scope, "name": self.name, "what": self.what}
        wanted = {"wanted": self.wanted} if self.wanted else {}
        return shown | {"limit": limit, "spent": spent} | wanted

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> UsedUp:
        """Read what `to_json` wrote."""
        what = str(data["what"])
        limit, spent = (read_amount(what, data[name]) for name in ("limit", "spent"))
        return cls(data["scope"], data["name"], what, limit, spent, _count(data.get("wanted")))

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> UsedUp | None:
        """`from_json`, of what a ledger holds; None if it is something else."""
        try:
            found = cls.from_json(data)
        except (KeyError, TypeError, ValueError, ConfigError):
            return None
        named = isinstance(data["scope"], str) and isinstance(data["name"], str)
        return found if named and found.what in WHAT else None

    def still(self, limit: int | None, spent: int) -> bool:
        """Whether it leaves no room with this limit either, of which so much is spent."""
        if limit is None:
            return False
        return spent + self.wanted > limit if self.wanted else spent >= limit

    def describe(self) -> str:
        """How much of what is spent, such as ``$1.52 of $1.50``."""
        wanted = f", and {self.wanted} more wanted" if self.wanted else ""
        return describe(self.what, self.limit, self.spent) + wanted

    def command(self) -> str:
        """The command that gives more, without a number."""
        name = quote(self.name)
        if self.scope == "run":
            return f"budgets raise {name} {self.what}=..."
        return f"budgets set --{self.scope} {name} {self.what}=..."

    def whose(self) -> str:
        """Whose budget it is, such as ``the budget of tag 'tenant:acme'``."""
        return "its budget" if self.scope == "run" else f"the budget of {self.scope} {self.name!r}"


def amount(what: str, number: int) -> Any:
    """A limit, or what is spent of it, as JSON has it."""
    return usd_text(number) if what == "usd" else number


def read_amount(what: str, value: Any) -> int:
    """Read what `amount` made."""
    return nanousd(dollars(what, value)) or 0 if what == "usd" else int(value)


def _checked_count(name: str, count: object) -> int | None:
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_COUNT:
        raise ConfigError(f"{name}={count!r}: a whole number from 0.")
    return count


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def describe(what: str, limit: int | None, spent: int) -> str:
    """How much is spent of a limit, such as ``7 of 20 requests``; without one, how much at all."""
    if what == "usd":
        return usd_shown(spent) + ("" if limit is None else f" of {usd_shown(limit)}")
    return f"{spent:,}{'' if limit is None else f' of {limit:,}'} {what.replace('_', ' ')}"


NO_LIMIT = Budget()
"""What an agent has that declares no budget."""
