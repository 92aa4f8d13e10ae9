"""What a PostgreSQL URL says: where the server is, and how durably is to use it.

Owns durably's own parameters in the URL's query; the rest is libpq's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from durably.errors import ConfigError

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
DEFAULT_SCHEMA = "public"
DEFAULT_LANES = 4
MAX_LANES = 64

OWN = ("schema", "pool_size", "notify", "prepare")
"""Parameters that libpq never sees."""

PATIENCE = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
"""Unless the URL says otherwise: a host that is gone without a word is noticed within a lease, and
the next host is tried. The defaults of psycopg and of systems take from minutes to hours."""

_IDENTIFIER = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,47}")

# Words of SQL: Oban writes the schema's name without quotes.
_WORDS_OF_SQL = """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check
    collate collation column concurrently constraint create cross current_catalog current_date
    current_role current_schema current_time current_timestamp current_user default deferrable desc
    distinct do else end except false fetch for foreign freeze from full grant group having ilike in
    initially inner intersect into is isnull join lateral leading left like limit localtime
    localtimestamp natural not notnull null offset on only or order outer overlaps placing primary
    references returning right select session_user similar some symmetric system_user table
    tablesample then to trailing true union unique user using variadic verbose when where window
    with information_schema
"""


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

    conninfo: str = field(repr=False)
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
        place, said = _split(self.conninfo)
        told = {"application_name": application, "target_session_attrs": "read-write", **PATIENCE}
        return _joined(place, list((told | dict(said)).items()))

    def qualified(self, table: str) -> str:
        """A table's name, as it is written with its schema."""
        return f'"{self.schema}".{table}'

    @classmethod
    def parse(cls, url: str) -> PostgresUrl:
        """Understand a URL.

        Raises:
            ConfigError: it is none, or one of durably's own parameters cannot be.
        """
        place, query = _split(url)
        own = {name: value for name, value in query if name in OWN}
        others = [(name, value) for name, value in query if name not in OWN]
        _check_login(place)
        shown = _without_password(place, others, own.get("schema"))
        conninfo = _joined(place, others)
        _check_conninfo(conninfo, shown)
        return cls(
            conninfo=conninfo,
            shown=shown,
            schema=_schema(own.get("schema", DEFAULT_SCHEMA)),
            lanes=_lanes(own.get("pool_size", str(DEFAULT_LANES))),
            notify=_switch(own, "notify"),
            prepare=_switch(own, "prepare"),
        )


def _split(url: str) -> tuple[str, list[tuple[str, str]]]:
    """Where the server is (``user@host/database``), and the parameters.

    Not by urlsplit: it knows fragments, which libpq does not, and loses an empty host.
    """
    place, _, query = url.partition("://")[2].partition("?")
    return place, parse_qsl(query, keep_blank_values=True)


def _joined(place: str, query: Sequence[tuple[str, str]]) -> str:
    mark = "?" if query else ""
    return f"postgresql://{place}{mark}{urlencode(query, quote_via=quote)}"


def _check_login(place: str) -> None:
    netloc, _, rest = place.partition("/")
    if "@" in rest and "@" not in netloc:
        raise ConfigError(
            "The URL's password holds a character that means something in URLs: write / as %2F, "
            "? as %3F, @ as %40 and % as %25."
        )


def _check_conninfo(conninfo: str, shown: str) -> None:
    try:
        conninfo_to_dict(conninfo)
    except (ProgrammingError, UnicodeError) as error:
        # What libpq says quotes what it does not understand, which may be the password.
        plain = isinstance(error, ProgrammingError) and _password_of(conninfo) is None
        said = " ".join(str(error).split()) if plain else "not understood"
        raise ConfigError(f"{shown} is no URL of a PostgreSQL database: {said}.") from None


def _password_of(conninfo: str) -> str | None:
    place, query = _split(conninfo)
    login = place.rpartition("@")[0]
    return login.partition(":")[2] or dict(query).get("password") or None


def _without_password(place: str, query: Sequence[tuple[str, str]], schema: str | None) -> str:
    login, at, host = place.rpartition("@")
    shown = [(n, v) for n, v in query if n not in ("password", "sslpassword")]
    if schema is not None:
        shown.append(("schema", schema))
    quoted = _joined(login.partition(":")[0] + at + host, shown)
    text = unquote(quoted)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else quote(c, errors="replace") for c in quoted)


def _schema(name: str) -> str:
    if not _IDENTIFIER.fullmatch(name):
        raise ConfigError(
            f"schema={name!r}: small letters, digits and underscores, 48 at most, no digit first "
            "and no pg_."
        )
    if name in _WORDS_OF_SQL.split():
        raise ConfigError(f"schema={name!r} is a word of SQL's own: choose another one.")
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
