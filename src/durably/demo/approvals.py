"""Refunds above the limit: what is asked, who decides, and the shop's own record of it.

Owns the record; how somebody decides is the keyboard's, or the office's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from durably import Run
from durably.demo.database import Database
from durably.demo.outside import Book
from durably.demo.site import Site
from durably.demo.tickets import Answer, Ticket, money
from durably.demo.tools import LIMIT_CENTS
from durably.records import Effect


@dataclass(frozen=True, slots=True)
class Request:
    """A call that waits for approval.

    Attributes:
        reference: under which the payment provider will have it.
        args: the arguments that the model gave.
    """

    ticket: Ticket
    call_id: str
    reference: str
    tool: str
    args: dict[str, Any]

    @classmethod
    def of(cls, ticket: Ticket, effect: Effect) -> Request:
        args = json.loads(effect.args)
        return cls(ticket, effect.call_id, effect.idempotency_key, effect.tool_name, args)

    @property
    def cents(self) -> int:
        """The amount that the model asks for."""
        return self.args["cents"]

    def __str__(self) -> str:
        return (
            f"{self.tool} of {money(self.cents)} for order {self.args['order']}, "
            f"above {money(LIMIT_CENTS)}"
        )


@dataclass(frozen=True, slots=True)
class Ruling:
    """What was decided about a request.

    Attributes:
        cents: the amount that may be paid; of a denial, the one that may not.
        at: when, or right before; nothing may be paid earlier.
    """

    decision: Literal["approved", "denied"]
    by: str
    cents: int
    at: str


class Approver(Protocol):
    """Who decides about refunds above the limit.

    Attributes:
        thinks: it is a person, who takes as long as it takes.
    """

    thinks: bool

    async def decide(self, run: Run[Answer], request: Request) -> Ruling | None:
        """Decide, and let the ledger know; None: somebody else was faster."""
        ...


def record(site: Site, request: Request, ruling: Ruling) -> None:
    """Write a ruling into the shop's own record."""
    entry = {
        "ticket": request.ticket.id,
        "call": request.call_id,
        "reference": request.reference,
        "decision": ruling.decision,
        "by": ruling.by,
        "cents": ruling.cents,
        "at": ruling.at,
    }
    Book(site.approvals).append(lambda _: entry)


async def decided_elsewhere(run: Run[Answer], request: Request) -> Ruling | None:
    """What somebody decided with a command of their own, in the middle of the demo."""
    for decision in await run.decisions():
        if decision.call_id == request.call_id and decision.decision in ("approved", "denied"):
            cents = json.loads(decision.args_after)["cents"] if decision.args_after else None
            return Ruling(
                "denied" if cents is None else "approved",
                decision.by,
                request.cents if cents is None else cents,
                decision.at.isoformat(timespec="milliseconds"),
            )
    return None


def undecided(database: Database) -> list[tuple[str, str]]:
    """The calls that wait for approval: the run's key, and the call's id."""
    rows = database.read(
        "SELECT r.key, e.response, e.call FROM durably_effects AS e "
        "JOIN durably_runs AS r ON r.id = e.run_id "
        "WHERE e.state = 'awaiting' AND e.asked AND e.ask = 'approval' ORDER BY r.key"
    )
    return [(row["key"], f"{row['response']}.{row['call']}") for row in rows]
