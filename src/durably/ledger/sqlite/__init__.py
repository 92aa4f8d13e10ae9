"""The ledger in a SQLite file: the default."""
