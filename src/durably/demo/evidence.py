"""The evidence: what the shop, the outside world and the ledger hold when the demo is over.

Owns the reading; what it proves is the verdict's. Nothing that the demo itself remembers is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from durably import Durably, EffectState, Run, RunState
from durably.demo import shop
from durably.demo.database import Database
from durably.demo.outside import Book, Entry
from durably.demo.site import Site
from durably.demo.tickets import Answer, Ticket
from durably.records import Attempt, Decision, Effect


class Response(NamedTuple):
    """A model response in the ledger: of which ticket, which one, saved by which attempt."""

    ticket: str
    step: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Dealt:
    """A ticket and what the ledger has on it.

    Attributes:
        asked: the calls that a person was asked to approve, each as often as that was.
    """

    ticket: Ticket
    answer: Answer | None
    effects: list[Effect]
    attempts: list[Attempt]
    asked: list[str]
    decisions: list[Decision]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was read back.

    Attributes:
        approvals: the shop's own record of what was decided about refunds.
        jobs: how many jobs Oban has, by state; None: it is not used.
    """

    dealt: list[Dealt]
    responses: list[Response]
    payments: list[Entry]
    mails: list[Entry]
    requests: list[Entry]
    kills: list[Entry]
    approvals: list[Entry]
    booked: list[dict[str, Any]]
    unbalanced: list[int]
    jobs: dict[str, int] | None


async def gather(app: Durably, site: Site, tickets: Sequence[Ticket]) -> Evidence:
    """Read everything, through the API, SQL and the files."""
    return Evidence(
        dealt=[await _dealt(await app.get(ticket.id), ticket) for ticket in tickets],
        responses=_responses(site.database),
        payments=Book(site.payments).entries(),
        mails=Book(site.outbox).entries(),
        requests=Book(site.bill).entries(),
        kills=Book(site.kills).entries(),
        approvals=Book(site.approvals).entries(),
        booked=shop.booked_by_tickets(site.database),
        unbalanced=shop.unbalanced_orders(site.database),
        jobs=_jobs(site.database) if site.postgres_url else None,
    )


async def _dealt(run: Run[Answer], ticket: Ticket) -> Dealt:
    answer = run.output() if run.state is RunState.COMPLETED else None
    asked = [
        event.data["call_id"]
        for event in await run.events()
        if event.kind == "effect" and event.data["state"] == EffectState.AWAITING
    ]
    decisions = [d for d in await run.decisions() if d.decision in ("approved", "denied")]
    return Dealt(ticket, answer, await run.effects(), await run.attempts(), asked, decisions)


def _responses(database: Database) -> list[Response]:
    # The ledger's rows are plain SQL and JSON: any program can read them without durably.
    rows = database.read(
        "SELECT r.key AS ticket, m.attempt, "
        "row_number() OVER (PARTITION BY r.id ORDER BY m.seq) - 1 AS step "
        "FROM durably_messages AS m JOIN durably_runs AS r ON r.id = m.run_id "
        "WHERE m.kind = 'response'"
    )
    return [Response(**row) for row in rows]


def _jobs(database: Database) -> dict[str, int]:
    rows = database.read("SELECT CAST(state AS TEXT), count(*) FROM oban_jobs GROUP BY state")
    return {row["state"]: row["count"] for row in rows}
