"""The shop's database: orders, prices and books, in the same SQLite file as the ledger.

Owns the shop's SQL; when its books are written together with a tool's result is the tools'.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from durably.demo.site import data_text


def open_shop(database: Path) -> None:
    """Create the shop with its orders.

    Raises:
        sqlite3.Error: the file exists already, or cannot be written.
    """
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(f"BEGIN;\n{data_text('shop.sql')}\nCOMMIT;")


def find_order(database: Path, number: int) -> dict[str, Any] | None:
    """An order with its lines and what was paid for it."""
    with closing(connect(database)) as connection:
        order = connection.execute("SELECT * FROM orders WHERE number = ?", (number,)).fetchone()
        if order is None:
            return None
        lines = connection.execute(
            "SELECT product, quantity, unit_cents FROM order_lines WHERE order_number = ?",
            (number,),
        ).fetchall()
        entries = connection.execute(
            "SELECT kind, cents, payment_id FROM entries WHERE order_number = ? ORDER BY id",
            (number,),
        ).fetchall()
    return {
        **dict(order),
        "total_cents": sum(line["quantity"] * line["unit_cents"] for line in lines),
        "lines": [dict(line) for line in lines],
        "entries": [dict(entry) for entry in entries],
    }


def prices(database: Path) -> dict[str, int]:
    """The price list, in cents."""
    with closing(connect(database)) as connection:
        return dict(connection.execute("SELECT name, price_cents FROM products").fetchall())


def book_payment(
    connection: sqlite3.Connection,
    *,
    order: int,
    kind: str,
    cents: int,
    payment_id: str,
    ticket: str,
) -> int:
    """Write a payment into the books and the order, on the caller's transaction."""
    row = connection.execute(
        "INSERT INTO entries (order_number, kind, cents, payment_id, ticket) "
        "VALUES (?, ?, ?, ?, ?) RETURNING id",
        (order, kind, cents, payment_id, ticket),
    ).fetchone()
    connection.execute(
        "UPDATE orders SET paid_cents = paid_cents + ? WHERE number = ?",
        (-cents if kind == "refund" else cents, order),
    )
    return row[0]


def booked_by_tickets(database: Path) -> list[dict[str, Any]]:
    """What the books say was charged or paid back because of a ticket."""
    with closing(connect(database)) as connection:
        rows = connection.execute(
            "SELECT order_number AS 'order', kind, cents, payment_id, ticket FROM entries "
            "WHERE ticket IS NOT NULL ORDER BY id"
        ).fetchall()
    return [dict(row) for row in rows]


def unbalanced_orders(database: Path) -> list[int]:
    """Orders whose paid amount is not the sum of their entries."""
    with closing(connect(database)) as connection:
        rows = connection.execute(
            "SELECT number FROM orders AS o WHERE paid_cents <> "
            "(SELECT coalesce(sum(CASE kind WHEN 'refund' THEN -cents ELSE cents END), 0) "
            "FROM entries WHERE order_number = o.number)"
        ).fetchall()
    return [row["number"] for row in rows]


def connect(database: Path) -> sqlite3.Connection:
    """A connection for reading."""
    # A long timeout: the workers' commits come first.
    connection = sqlite3.connect(database, timeout=30)
    connection.row_factory = sqlite3.Row
    return connection
