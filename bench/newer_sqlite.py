"""A SQLite that is new enough for DBOS, where Python's own is not."""

from __future__ import annotations

import sqlite3
import sys

NEEDED_SQLITE = (3, 42)
"""The first with `unixepoch('subsec')`, which DBOS's tables are made with."""


def use_newer_sqlite() -> None:
    """For what this process imports from now on: not all of DBOS can be given a driver."""
    if sqlite3.sqlite_version_info < NEEDED_SQLITE:
        import pysqlite3
        import pysqlite3.dbapi2

        sys.modules["sqlite3"], sys.modules["sqlite3.dbapi2"] = pysqlite3, pysqlite3.dbapi2
