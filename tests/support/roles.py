"""Roles that may do less than a test's superuser."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg

PASSWORD = "secret"
"""Of every one of them; nothing may ever print it."""


def logged_in_as(url: str, name: str) -> str:
    """The same database, as somebody else."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{name}:{PASSWORD}@{host}").geturl()


@contextmanager
def role(url: str, name: str, grants: str) -> Generator[str]:
    """A role with these rights in a database; the URL to connect as it."""
    with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:

        def execute(script: str) -> None:
            for statement in script.split(";\n"):
                if statement.strip():
                    connection.execute(statement.encode())

        execute(f"DROP ROLE IF EXISTS {name};\nCREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        try:
            execute(grants)
            yield logged_in_as(url, name)
        finally:
            execute(f"DROP OWNED BY {name};\nDROP ROLE {name}")
