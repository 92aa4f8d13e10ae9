"""The tickets: what customers wrote, and what should come of it.

Owns the file's format; what a ticket calls for is the model's to find out.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from durably.demo.site import data_text

Outcome = Literal["charged", "refunded", "answered"]


class Expectation(BaseModel):
    """What should come of a ticket. The agent never sees it; the verdict compares."""

    outcome: Outcome
    order: int | None = None
    cents: int = 0


class Ticket(BaseModel):
    """A customer's message."""

    id: str
    name: str
    email: str
    subject: str
    body: str
    expects: Expectation

    @property
    def prompt(self) -> str:
        """What the agent is asked."""
        return (
            f"Ticket {self.id} from {self.name} <{self.email}>\n"
            f"Subject: {self.subject}\n\n{self.body}"
        )


class Answer(BaseModel):
    """What the agent reports when a ticket is dealt with."""

    outcome: Outcome
    summary: str


def load_tickets() -> list[Ticket]:
    """The tickets that ship with the demo."""
    lines = data_text("tickets.jsonl").splitlines()
    return [Ticket.model_validate_json(line) for line in lines if line.strip()]


def money(cents: int) -> str:
    """Cents as people write them."""
    return f"${cents / 100:,.2f}"
