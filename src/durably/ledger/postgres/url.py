"""What a PostgreSQL URL says: where the server is, and how durably is to use it.

Owns durably's own parameters in the URL's query; the rest is libpq's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from durably.errors import ConfigError

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
DEFAULT_SCHEMA = "public"
DEFAULT_LANES = 4
MAX_LANES = 64

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A URL, understood.

    Attributes:
        conninfo: for libpq, without durably's own parameters; holds the password, if there is one.
        shown: the URL as it may be logged: no password.
        schema: where the tables lie, durably's and Oban's; ``?schema=``, ``public`` by default.
        lanes: how many connections write at the same time; ``?pool_size=``, 4 by default.
        notify: whether processes tell each other over LISTEN/NOTIFY; ``?notify=off`` polls.
        prepare: whether statements are prepared; ``?prepare=off`` for poolers that mix sessions.
    """

    conninfo: str
    shown: str
    schema: str = DEFAULT_SCHEMA
    lanes: int = DEFAULT_LANES
    notify: bool = True
    prepare: bool = True

    @property
    def channel(self) -> str:
        """Where processes tell each other that they have committed something."""
        return f"{self.schema}.durably"

    def conninfo_as(self, application: str) -> str:
        """The same for libpq, for a library that makes connections of its own.

        With a name for ``pg_stat_activity``; of several hosts, the one that takes writes is meant.
        """
        parts = urlsplit(self.conninfo)
        said = dict(parse_qsl(parts.query, keep_blank_values=True))
        query = {"application_name": application, "target_session_attrs": "read-write"} | said
        return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))

    def qualified(self, table: str) -> str:
        """A table's name, as it is written with its schema."""
        return f'"{self.schema}".{table}'

    @classmethod
    def parse(cls, url: str) -> PostgresUrl:
        """Understand a URL.

        Raises:
            ConfigError: one of durably's own parameters cannot be.
        """
        parts = urlsplit(url)
        own: dict[str, str] = {}
        others: list[tuple[str, str]] = []
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name in ("schema", "pool_size", "notify", "prepare"):
                own[name] = value
            else:
                others.append((name, value))
        query = urlencode(others, quote_via=quote)
        conninfo = urlunsplit(("postgresql", parts.netloc, parts.path, query, ""))
        return cls(
            conninfo=conninfo,
            shown=_without_password(conninfo, own.get("schema")),
            schema=_schema(own.get("schema", DEFAULT_SCHEMA)),
            lanes=_lanes(own.get("pool_size", str(DEFAULT_LANES))),
            notify=_switch(own, "notify"),
            prepare=_switch(own, "prepare"),
        )


def _without_password(conninfo: str, schema: str | None) -> str:
    parts = urlsplit(conninfo)
    login, at, host = parts.netloc.rpartition("@")
    shown = [(n, v) for n, v in parse_qsl(parts.query) if n not in ("password", "sslpassword")]
    if schema is not None:
        shown.append(("schema", schema))
    netloc = login.partition(":")[0] + at + host
    return unquote(urlunsplit((parts.scheme, netloc, parts.path, urlencode(shown), "")))


def _schema(name: str) -> str:
    if not _IDENTIFIER.fullmatch(name):
        raise ConfigError(
            f"schema={name!r}: letters, digits and underscores, 48 at most, no digit first."
        )
    return name


def _lanes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_LANES:
        raise ConfigError(f"pool_size={text!r}: a number from 1 to {MAX_LANES}.")
    return int(text)


def _switch(own: Mapping[str, str], name: str) -> bool:
    value = own.get(name, "on")
    if value not in ("on", "off"):
        raise ConfigError(f"{name}={value!r}: on or off.")
    return value == "on"
