"""The shop: orders, prices and books, in the same database as the ledger.

Owns the shop's SQL; when its books are written together with a tool's result is the tools'.
"""

from __future__ import annotations

from typing import Any

from durably.demo.database import Database


def find_order(database: Database, number: int) -> dict[str, Any] | None:
    """An order with its lines and what was paid for it."""
    found = database.read("SELECT * FROM orders WHERE number = ?", number)
    if not found:
        return None
    lines = database.read(
        "SELECT product, quantity, unit_cents FROM order_lines WHERE order_number = ?", number
    )
    entries = database.read(
        "SELECT kind, cents, payment_id FROM entries WHERE order_number = ? ORDER BY id", number
    )
    return {
        **found[0],
        "total_cents": sum(line["quantity"] * line["unit_cents"] for line in lines),
        "lines": lines,
        "entries": entries,
    }


def prices(database: Database) -> dict[str, int]:
    """The price list, in cents."""
    rows = database.read("SELECT name, price_cents FROM products")
    return {row["name"]: row["price_cents"] for row in rows}


def book_payment(
    database: Database,
    connection: Any,
    *,
    order: int,
    kind: str,
    cents: int,
    payment_id: str,
    ticket: str,
) -> int:
    """Write a payment into the books and the order, on the caller's transaction."""
    ((entry,),) = database.write(
        connection,
        "INSERT INTO entries (order_number, kind, cents, payment_id, ticket) "
        "VALUES (?, ?, ?, ?, ?) RETURNING id",
        *(order, kind, cents, payment_id, ticket),
    )
    database.write(
        connection,
        "UPDATE orders SET paid_cents = paid_cents + ? WHERE number = ?",
        *(-cents if kind == "refund" else cents, order),
    )
    return entry


def booked_by_tickets(database: Database) -> list[dict[str, Any]]:
    """What the books say was charged or paid back because of a ticket."""
    return database.read(
        'SELECT order_number AS "order", kind, cents, payment_id, ticket FROM entries '
        "WHERE ticket IS NOT NULL ORDER BY id"
    )


def unbalanced_orders(database: Database) -> list[int]:
    """Orders whose paid amount is not the sum of their entries."""
    rows = database.read(
        "SELECT number FROM orders AS o WHERE paid_cents <> "
        "(SELECT coalesce(sum(CASE kind WHEN 'refund' THEN -cents ELSE cents END), 0) "
        "FROM entries WHERE order_number = o.number)"
    )
    return [row["number"] for row in rows]
