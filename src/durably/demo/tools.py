"""The support agent's tools, each with what repeating it would mean.

Owns the tools and their effect policies; shop and payment provider are modules of their own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_ai import FunctionToolset, ModelRetry, RunContext

from durably import Call, NotDone, current_call, effects
from durably.demo import shop
from durably.demo.outside import Entry, MailServer, PaymentProvider
from durably.demo.site import Site
from durably.demo.traps import Traps

LIMIT_CENTS = 10_000
"""A refund of more than this waits for a person."""

APPROVED = "approved"
"""The trap between the approval of a refund and the refund."""

NETWORK_SECONDS = 0.15
"""How long the payment provider takes each way."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the tools work with, for one attempt of one ticket."""

    site: Site
    ticket: str
    email: str
    attempt: int

    @property
    def provider(self) -> PaymentProvider:
        return PaymentProvider(self.site.payments)

    @property
    def traps(self) -> Traps:
        return Traps(self.site.traps)


def find_charge(ctx: RunContext[Desk], call: Call) -> effects.Done:
    """Asked when a worker died in a charge: did the provider get it?"""
    found = ctx.deps.provider.find(call.idempotency_key)
    if found is None:
        raise NotDone
    return effects.Done(receipt(found))


tools: FunctionToolset[Desk] = FunctionToolset()


@tools.tool(metadata=effects.READ)
def find_order(ctx: RunContext[Desk], number: int) -> dict[str, Any]:
    """Look up an order: its lines, status, and the entries of what was paid."""
    order = shop.find_order(ctx.deps.site.database, number)
    return order or {"error": f"There is no order {number}."}


@tools.tool(metadata=effects.READ)
def price_list(ctx: RunContext[Desk]) -> dict[str, int]:
    """The prices of everything that the shop sells, in cents."""
    return shop.prices(ctx.deps.site.database)


@tools.tool(metadata=effects.once(reconcile=find_charge))
def charge_card(ctx: RunContext[Desk], order: int, cents: int) -> dict[str, Any]:
    """Charge the card on file for an order; answers with the payment id."""
    if cents <= 0:
        raise ModelRetry("There is nothing to charge: cents must be more than 0.")
    return _move(ctx.deps, "charge", order, cents)


@tools.tool(metadata=effects.once(on_doubt="ask", approve=lambda args: args["cents"] > LIMIT_CENTS))
def refund(ctx: RunContext[Desk], order: int, cents: int) -> dict[str, Any]:
    """Pay money back for an order; answers with the payment id."""
    found = shop.find_order(ctx.deps.site.database, order)
    paid = found["paid_cents"] if found else 0
    if not 0 < cents <= paid:
        raise ModelRetry(f"At most {paid} cents can be paid back for order {order}.")
    if ctx.tool_call_approved:
        # The ledger knows that it may have been paid; whoever dies here has not paid it.
        ctx.deps.traps.step_in(APPROVED, ctx.deps.ticket)
    return _move(ctx.deps, "refund", order, cents)


@tools.tool(metadata=effects.TRANSACTIONAL)
def book(ctx: RunContext[Desk], payment_id: str) -> dict[str, Any]:
    """Write a charge or a refund that was made into the shop's books."""
    made = ctx.deps.provider.get(payment_id)
    if made is None:
        raise ModelRetry(f"The provider knows no payment {payment_id!r}: charge or refund first.")
    with current_call().transaction() as connection:
        entry = shop.book_payment(
            ctx.deps.site.database,
            connection,
            order=made["order"],
            kind=made["kind"],
            cents=made["cents"],
            payment_id=made["id"],
            ticket=ctx.deps.ticket,
        )
    return {"entry": entry}


@tools.tool(metadata=effects.IDEMPOTENT)
def send_mail(ctx: RunContext[Desk], subject: str, body: str) -> str:
    """Send the customer a mail."""
    MailServer(ctx.deps.site.outbox).send(
        # The same in every attempt: a mail server that has seen it sends nothing twice.
        message_id=f"<{current_call().idempotency_key}@shop.example>",
        to=ctx.deps.email,
        subject=subject,
        body=body,
        ticket=ctx.deps.ticket,
    )
    return "sent"


def receipt(entry: Entry) -> dict[str, Any]:
    """What the provider answers, and what it says later if it is asked."""
    return {"payment_id": entry["id"], "order": entry["order"], "cents": entry["cents"]}


def _move(desk: Desk, kind: Literal["charge", "refund"], order: int, cents: int) -> dict[str, Any]:
    time.sleep(NETWORK_SECONDS)
    reference = current_call().idempotency_key
    entry = desk.provider.move(
        kind, order=order, cents=cents, ticket=desk.ticket, reference=reference
    )
    # The worst moment: the money has moved, and nobody but the provider knows yet.
    desk.traps.step_in(kind, desk.ticket)
    time.sleep(NETWORK_SECONDS)
    return receipt(entry)
