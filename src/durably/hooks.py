"""Hooks that are ready to use, for `Durably.on_waiting`: a webhook, and Slack's.

Owns what they send; that it is sent, and sent again, is the worker's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from durably.errors import ConfigError, DurablyError
from durably.records import Waiting

type WaitingHook = Callable[[Waiting], Awaitable[None]]

ARGS_CHARS = 500
QUESTION_CHARS = 2000

KEY_BYTES = range(24, 65)
"""How long a key may be (Standard Webhooks, "Signature scheme")."""


def webhook(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    secret: str | None = None,
    timeout: float = 10.0,
) -> WaitingHook:
    """A hook that posts what waits as JSON (see `to_json`) to a URL.

    ``app.on_waiting(hooks.webhook("https://desk.example/waiting", secret="whsec_…"))``

    Requests are those of Standard Webhooks (https://www.standardwebhooks.com), so that a receiver
    can check them with its libraries. ``webhook-id``, also sent as ``Idempotency-Key``, is the same
    when something is sent again. Any answer but 2xx counts as a failure; no redirect is followed.

    Args:
        headers: sent along, such as an authorization.
        secret: what the request is signed with, in base64, with or without ``whsec_`` before it;
            24 to 64 bytes. Without one there is no signature.
        timeout: seconds until a receiver that has not answered counts as away.

    Raises:
        ConfigError: the URL or the secret cannot be.
    """
    key = None if secret is None else _key_of(secret)

    def request(waiting: Waiting) -> tuple[dict[str, str], bytes]:
        body = json.dumps(to_json(waiting)).encode()
        own = {"webhook-id": waiting.id, "webhook-timestamp": str(int(time.time()))}
        own["Idempotency-Key"] = waiting.id
        if key is not None:
            own["webhook-signature"] = sign(key, waiting.id, own["webhook-timestamp"], body)
        return {**(headers or {}), **own}, body

    return _Post("webhook", url, timeout, request)


def slack(url: str, *, timeout: float = 10.0) -> WaitingHook:
    """A hook that writes a line into a Slack channel, by one of Slack's incoming webhooks.

    Args:
        url: the webhook's, ``https://hooks.slack.com/services/…``; whoever knows it can post.
        timeout: seconds until Slack counts as away.

    Raises:
        ConfigError: the URL cannot be.
    """

    def request(waiting: Waiting) -> tuple[dict[str, str], bytes]:
        # As it is: what a model wrote makes no link, mentions nobody, and has Slack fetch nothing.
        plainly = {"mrkdwn": False, "unfurl_links": False, "unfurl_media": False}
        return {}, json.dumps({"text": slack_text(waiting), **plainly}).encode()

    return _Post("slack", url, timeout, request)


def to_json(waiting: Waiting) -> dict[str, Any]:
    """What `webhook` posts; ``data`` is what waits."""
    return {
        "type": f"run.{waiting.reason}",
        "timestamp": waiting.at.isoformat(),
        "data": {
            "id": waiting.id,
            "reason": waiting.reason,
            "run_key": waiting.run_key,
            "path": waiting.path,
            "agent": waiting.agent,
            "queue": waiting.queue,
            "tags": waiting.tags,
            "kind": waiting.kind,
            "call_id": waiting.call_id,
            "tool_name": waiting.tool_name,
            "args": waiting.args,
            "question": waiting.question,
            "choices": waiting.choices,
            "request": waiting.request,
            "since": waiting.since.isoformat(),
        },
    }


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The value of ``webhook-signature`` (Standard Webhooks, "Signature scheme")."""
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def slack_text(waiting: Waiting) -> str:
    """What `slack` writes: what waits, and the command that decides about it."""
    run = shlex.join(filter(None, (waiting.run_key, waiting.call_id)))
    late = "Nobody has decided in time: " if waiting.reason == "escalated" else ""
    lines = [f"{late}Run {waiting.run_key} (agent {waiting.agent}) {_what(waiting)}"]
    if waiting.question is not None:
        lines.append(_short(str(waiting.question), QUESTION_CHARS))
    if waiting.choices:
        lines.append("Choices: " + ", ".join(map(str, waiting.choices)))
    lines.append(_HOW.get(waiting.kind, "durably show {run}").format(run=run))
    text = "\n".join(lines)
    # The three characters that Slack takes for its own ("Formatting text", "Escaping text").
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_HOW = {
    "approval": "durably approve {run}, or durably deny {run} --reason …",
    "question": "durably answer {run} …",
    "answer": "durably answer {run} --value …",
    "doubt": "durably resolve {run} with --done …, --failed … or --again",
    "change": "durably retry {run} lets it go on with the agent as it is now",
}


def _what(waiting: Waiting) -> str:
    call = _short(f"{waiting.tool_name} {json.dumps(waiting.args)}", ARGS_CHARS)
    match waiting.kind:
        case "approval":
            return f"waits for approval: {call}"
        case "question":
            return "asks:"
        case "answer":
            return f"waits for an answer in the place of {call}"
        case "doubt":
            return f"waits: did this call happen? {call}"
        case "change":
            return "waits because its agent changed."
        case "budget":
            return "waits because its budget is spent."
        case other:
            return f"waits: {other}"


def _short(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[: chars - 1]}…"


def _key_of(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in KEY_BYTES:
        raise ConfigError(
            "The webhook's secret is not 24 to 64 bytes in base64: make one with "
            '`python -c "import base64, secrets; '
            "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\"`."
        )
    return key


# --- sending

_silent: ContextVar[bool] = ContextVar("durably_hooks_silent", default=False)
"""True while a hook here sends: the client would log the URL, and with Slack that is a secret."""


def _may_log(_: logging.LogRecord) -> bool:
    return not _silent.get()


logging.getLogger("httpx2").addFilter(_may_log)


class _Post:
    """Posts JSON to a URL, which it shows to nobody."""

    def __init__(
        self,
        kind: str,
        url: str,
        timeout: float,
        request: Callable[[Waiting], tuple[dict[str, str], bytes]],
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"A {kind} hook needs a URL that begins with https:// or http://.")
        if not timeout > 0:
            raise ConfigError(f"timeout={timeout:g}: more than 0 seconds.")
        self._url = url
        self._host = parts.hostname
        self._timeout = timeout
        self._request = request
        # Of two for one host, each is known again by another process, which has the same URLs.
        self.hook_name = f"{kind} {hashlib.sha256(url.encode()).hexdigest()[:8]}"

    def __repr__(self) -> str:
        return f"<{self.hook_name} at {self._host}>"

    async def __call__(self, waiting: Waiting) -> None:
        import httpx2

        headers, body = self._request(waiting)
        headers["Content-Type"] = "application/json"
        token = _silent.set(True)
        try:
            async with (
                asyncio.timeout(self._timeout),
                httpx2.AsyncClient(timeout=self._timeout) as client,
                client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                status = answer.status_code
        finally:
            _silent.reset(token)
        if not 200 <= status < 300:
            raise DurablyError(f"{self._host} answered {status}.")
