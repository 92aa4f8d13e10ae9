"""Moving a ledger from SQLite to PostgreSQL: once, wholly, and never in use at both ends."""
