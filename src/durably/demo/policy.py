"""The scripted model's understanding: what a customer wants, what it costs, what to write back.

Pure rules on text and on what the tools returned; no ticket is known to it by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from durably.demo.tickets import Outcome, money

RETURN_DAYS = 30

STATUS = {
    "unpaid": "Your order is waiting for its payment.",
    "packing": "Your order is being packed and leaves within two days.",
    "shipped": "Your order has left us and is on its way to you.",
    "delivered": "Your order was delivered.",
    "lost": "Your parcel seems to be lost; tell us if we should refund it.",
}

CARE = "Oil the wood thinly with food-grade mineral oil once a month, and never soak it."

NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}

# Tried in this order: somebody who was charged twice also wants money back.
WISHES: dict[str, str] = {
    "charged twice": r"(charged?|paid)\b.{0,12}\btwice|two payments",
    "waiting for refund": r"waiting for (my|the) refund",
    "try again": r"card was declined|payment failed",
    "lost": r"never arrived",
    "faulty": r"broken|cracked|chipped|wrong (colour|size|item)",
    "return": r"changed my mind|send it back",
    "advice": r"what oil|how (do|should) I",
    "extra": r"\b(add|upgrade|forgot)\b",
}

type Order = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done about a ticket, and how to say it."""

    outcome: Outcome
    summary: str
    cents: int = 0


def order_number(text: str) -> int | None:
    """The first thing in a ticket that looks like an order number."""
    found = re.search(r"\b\d{5}\b", text)
    return int(found.group()) if found else None


def decide(text: str, order: Order | None, prices: dict[str, int]) -> Decision:
    """Apply the shop's rules."""
    if order is None:
        return Decision("answered", "We could not find an order number in your message.")
    if "error" in order:
        return Decision("answered", "We have no order with this number; please check it.")
    wish = next((name for name, words in WISHES.items() if re.search(words, text, re.I)), None)
    match wish:
        case "charged twice":
            return _charged_twice(order)
        case "waiting for refund":
            return _refund_on_its_way(order)
        case "try again":
            return _charge(order["total_cents"] - order["paid_cents"], "your order")
        case "lost":
            return _refund(order["paid_cents"], "the lost parcel")
        case "faulty":
            return _faulty(text, order)
        case "return":
            return _return(order)
        case "advice":
            return Decision("answered", CARE)
        case "extra":
            return _extra(text, prices)
        case _:
            return Decision("answered", STATUS[order["status"]])


def settle(decision: Decision, answer: Any) -> Decision:
    """What came of a charge or a refund: a person may have denied it, or lowered the amount."""
    match answer:
        case {"cents": int(paid)} if paid == decision.cents:
            return decision
        case {"cents": int(paid)}:
            said = f"We refunded {money(paid)} of the {money(decision.cents)} for this."
            return Decision(decision.outcome, said, paid)
        case {"error": reason} | reason:
            return Decision("answered", f"We did not pay this back. {reason}")


def mail(text: str, decision: Decision, order: Order | None) -> dict[str, str]:
    """The mail to the customer."""
    name = re.search(r"from (\w+)", text)
    subject = re.search(r"^Subject: (.*)$", text, re.M)
    about = f" about your order {order['number']}" if order and "number" in order else ""
    return {
        "subject": f"Re: {subject.group(1) if subject else 'your message'}",
        "body": f"Dear {name.group(1) if name else 'customer'},\n\n"
        f"thank you for your message{about}. {decision.summary}\n\n"
        "Kind regards,\nthe support desk",
    }


def _charged_twice(order: Order) -> Decision:
    payments = [entry["cents"] for entry in order["entries"] if entry["kind"] == "payment"]
    if len(payments) < 2:
        return Decision("answered", "We received one payment; the other one was not made.")
    return _refund(payments[-1], "the second payment")


def _refund_on_its_way(order: Order) -> Decision:
    refunds = [entry["cents"] for entry in order["entries"] if entry["kind"] == "refund"]
    if refunds:
        return Decision("answered", f"Your refund of {money(sum(refunds))} is on its way.")
    return Decision("answered", "We find no refund for this order and will look into it.")


def _faulty(text: str, order: Order) -> Decision:
    complaint = _sentence(text, WISHES["faulty"])
    for line in order["lines"]:
        if _names(complaint, line["product"]):
            count = min(_how_many(complaint, line["product"], line["quantity"]), line["quantity"])
            return _refund(count * line["unit_cents"], f"{count} × {line['product']}")
    return Decision("answered", "Please tell us which of the things you bought is meant.")


def _return(order: Order) -> Decision:
    delivered = order["delivered_on"]
    if delivered is None or (date.today() - date.fromisoformat(delivered)).days <= RETURN_DAYS:
        return _refund(order["paid_cents"], "your return")
    return Decision("answered", f"We take things back for {RETURN_DAYS} days after delivery.")


def _extra(text: str, prices: dict[str, int]) -> Decision:
    for wanted in re.findall(WISHES["extra"] + r"([^.?!]*)", text, re.I):
        for product, cents in prices.items():
            if _names(wanted[-1], product):
                count = _how_many(wanted[-1], product, 1)
                return _charge(count * cents, f"{count} × {product}")
    return Decision("answered", "We do not sell what you asked for.")


def _charge(cents: int, what: str) -> Decision:
    if cents <= 0:
        return Decision("answered", "There is nothing left to pay.")
    return Decision("charged", f"We charged {money(cents)} for {what}.", cents)


def _refund(cents: int, what: str) -> Decision:
    if cents <= 0:
        return Decision("answered", "This has been paid back already.")
    return Decision("refunded", f"We refunded {money(cents)} for {what}.", cents)


def _sentence(text: str, words: str) -> str:
    """The sentence in the message that has these words."""
    body = text.partition("\n\n")[2]
    sentences: Iterable[str] = re.split(r"(?<=[.?!])\s+", body)
    return next((s for s in sentences if re.search(words, s, re.I)), body)


def _keyword(product: str) -> str:
    """The word by which people call a product: mugs, the tray, express."""
    first, *_, last = product.lower().split()
    return first if last in ("shipping", "wrapping") else last


def _names(text: str, product: str) -> bool:
    return re.search(rf"\b{_keyword(product)}s?\b", text, re.I) is not None


def _how_many(text: str, product: str, otherwise: int) -> int:
    """'two stoneware mugs', 'one of the four mugs'; otherwise, if no number is said."""
    words = "|".join(NUMBERS)
    pattern = rf"\b({words})\b (?:of (?:the|my) )?(?:[\w-]+ ){{0,2}}?{_keyword(product)}"
    found = re.search(pattern, text, re.I)
    return NUMBERS[found.group(1).lower()] if found else otherwise
