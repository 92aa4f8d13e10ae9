"""``durably web``: the dashboard and the REST API, served until it is told to stop.

Owns where it listens, who is let in and what it says about that; what it serves is `durably.web`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durably.cli.exits import Refused
from durably.cli.options import AppOption, DebugOption, UrlOption
from durably.cli.target import Target, shown_url
from durably.cli.text import clean
from durably.cli.worker import log_to_stderr

if TYPE_CHECKING:
    from durably.app import Durably
    from durably.web import Access

DEFAULT_PORT = 8320

MIN_TOKEN_CHARS = 16
"""How short a token may be where others than this machine can try."""

GRACE_SECONDS = 5


def web(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help=f"Default: {DEFAULT_PORT}, or a free one if that is taken. 0: a free one.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Holds the token of those who may act. Default: DURABLY_WEB_TOKEN, else a new "
            "one, which is printed.",
        ),
    ] = None,
    viewer_token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Holds the token of those who may look. Default: DURABLY_WEB_VIEWER_TOKEN.",
        ),
    ] = None,
    no_login: Annotated[
        bool,
        typer.Option("--no-login", help="Let everybody act who reaches it; only on loopback."),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another name by which browsers know it, through a proxy; may be repeated.",
        ),
    ] = None,
    root_path: Annotated[
        str, typer.Option(metavar="PATH", help="Below which path a proxy shows it, such as /ops.")
    ] = "",
    title: Annotated[str, typer.Option(help="Above every page.")] = "durably",
    level: Annotated[str, typer.Option("--log-level", help="debug | info | warning")] = "info",
    app: AppOption = None,
    url: UrlOption = None,
    debug: DebugOption = False,
) -> None:
    """Serve the dashboard and the REST API until told to stop.

    Without an application, with --url alone, it shows and steers the ledger's runs; agents are
    where the workers are.
    """
    access = _access(host, token_file, viewer_token_file, no_login)
    _check_path(root_path)
    with _listen(host, port) as listening:
        _end_on_signals()
        log_to_stderr(level)
        durably = Target(app, url).find()
        _serve(durably, access, listening, host, allow_host or [], root_path, title, level)


def _serve(
    durably: Durably,
    access: Access,
    listening: socket.socket,
    host: str,
    names: list[str],
    root_path: str,
    title: str,
    level: str,
) -> None:
    import asyncio

    import uvicorn

    from durably.web.hosts import OnlyHosts
    from durably.web.server import create_app

    api: Any = create_app(durably, access=access, title=title)
    if _is_loopback(host):
        api = OnlyHosts(api, {host, *LOOPBACK_NAMES, *names})
    config = uvicorn.Config(
        api,
        root_path=root_path,
        log_config=None,
        log_level=level,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    _announce(durably, access, listening, host, root_path)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))


def _end_on_signals() -> None:
    """Being told to stop is no failure; the server hands a signal on once it has stopped."""

    def leave(_number: int, _frame: object) -> None:
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)


LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def _access(host: str, file: Path | None, viewer_file: Path | None, no_login: bool) -> Access:
    """Who is let in.

    Raises:
        Refused: a public address without a token that somebody chose.
    """
    from durably.web import OpenAccess, TokenAccess

    token = _token("DURABLY_WEB_TOKEN", file)
    viewer = _token("DURABLY_WEB_VIEWER_TOKEN", viewer_file)
    if no_login and (token or viewer):
        raise Refused("Give --no-login or a token, not both.")
    if viewer is not None and viewer == token:
        raise Refused("The two tokens are the same: those who may look could act.")
    if not _is_loopback(host):
        if no_login:
            raise Refused(f"--no-login would let everybody act who reaches {host}: set a token.")
        if token is None:
            raise Refused(
                f"Others can reach {host}: set a token of your own in DURABLY_WEB_TOKEN or "
                "--token-file."
            )
        if min(len(token), len(viewer or token)) < MIN_TOKEN_CHARS:
            raise Refused(f"Others can reach {host}: a token has {MIN_TOKEN_CHARS} characters.")
    return OpenAccess() if no_login else TokenAccess(token, viewer)


def _token(name: str, file: Path | None) -> str | None:
    """A token from a file, or from the environment; never from the command line, which all see.

    Raises:
        Refused: the file cannot be read, or holds none.
    """
    if file is None:
        return os.environ.get(name, "").strip() or None
    try:
        token = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"The token cannot be read from {file}: {error}.") from error
    if not token:
        raise Refused(f"There is no token in {file}.")
    return token


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_path(root_path: str) -> None:
    if not re.fullmatch(r"(/[\w.~-]+)*", root_path, re.ASCII):
        raise Refused(f"--root-path {root_path!r}: write a path such as /ops.")


def _listen(host: str, port: int | None) -> socket.socket:
    """Listen; without a port of the user's own, on a free one if the usual one is taken.

    Raises:
        Refused: nobody can listen there.
    """
    try:
        return _bound(host, DEFAULT_PORT if port is None else port)
    except OSError as error:
        if port is not None:
            raise Refused(f"Cannot listen on {host}, port {port}: {error.strerror}.") from error
    try:
        return _bound(host, 0)
    except OSError as error:
        raise Refused(f"Cannot listen on {host}: {error.strerror}.") from error


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening


def _announce(
    durably: Durably, access: Access, listening: socket.socket, host: str, root_path: str
) -> None:
    """Where it is, and how to get in, on stdout; a token that somebody chose is not printed."""
    from durably.web import TokenAccess

    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}{root_path}/"
    print(f"durably web serves the ledger {clean(shown_url(durably.ledger.url))}")
    if isinstance(access, TokenAccess) and access.generated:
        address += f"?token={access.operator}"
    print(f"Dashboard {address}", flush=True)
