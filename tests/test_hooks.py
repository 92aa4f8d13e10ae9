"""What the ready-made hooks send to a server that really listens, and what fails."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from durably import ConfigError, DurablyError, Effect, EffectState, Waiting, hooks
from durably.records import CallPosition

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Receiver:
    """A server on this machine; answers with the status that its path names, or after a while."""

    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list[Any])
    done: threading.Event = field(default_factory=threading.Event)
    url: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append((self.path, headers, body))
            status = self.path.rpartition("/")[2]
            if status == "never":
                receiver.done.wait()
                return
            self.send_response(int(status))
            self.send_header("Location", f"{receiver.url}/200")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    yield receiver
    receiver.done.set()
    server.shutdown()
    thread.join()
    server.server_close()


def effect(**fields: Any) -> Effect:
    made = Effect(
        run_id=1,
        position=CallPosition(3, 0),
        tool_name="refund",
        tool_call_id="c",
        args='{"cents":2000}',
        policy="once",
        on_doubt="ask",
        state=EffectState.AWAITING,
        asked=True,
        attempt=1,
        idempotency_key="k",
        result=None,
        error=None,
        resolved_by=None,
        started_at=NOW,
        finished_at=None,
        ask="approval",
        request={"schema": {"type": "object"}},
        approved=False,
        asked_at=NOW,
        expires_at=None,
        on_expiry=None,
    )
    return replace(made, **fields)


def waiting(call: Effect | None = None, **fields: Any) -> Waiting:
    call = call or effect()
    made = Waiting(
        id="msg_1",
        reason="waiting",
        tries=1,
        kind="approval",
        run_key="refund-42",
        agent="till",
        queue="agents",
        tags=["vip"],
        path=["support-7", "refund-42"],
        since=NOW,
        at=NOW,
        request=call.request,
        effect=call,
    )
    return replace(made, **fields)


# --- the webhook


async def test_webhook_posts_what_waits(receiver: Receiver) -> None:
    post = hooks.webhook(f"{receiver.url}/desk/204", headers={"Authorization": "Bearer x"})
    await post(waiting())
    ((path, headers, body),) = receiver.requests
    assert (path, headers["authorization"]) == ("/desk/204", "Bearer x")
    assert headers["content-type"] == "application/json"
    assert (headers["webhook-id"], headers["idempotency-key"]) == ("msg_1", "msg_1")
    assert "webhook-signature" not in headers
    assert json.loads(body) == {
        "type": "run.waiting",
        "timestamp": "2026-03-01T12:00:00+00:00",
        "data": {
            "id": "msg_1",
            "reason": "waiting",
            "run_key": "refund-42",
            "path": ["support-7", "refund-42"],
            "agent": "till",
            "queue": "agents",
            "tags": ["vip"],
            "kind": "approval",
            "call_id": "3.0",
            "tool_name": "refund",
            "args": {"cents": 2000},
            "question": None,
            "choices": None,
            "request": {"schema": {"type": "object"}},
            "since": "2026-03-01T12:00:00+00:00",
        },
    }


async def test_webhook_tells_questions_and_what_is_about_the_run(receiver: Receiver) -> None:
    post = hooks.webhook(f"{receiver.url}/200")
    asked = effect(ask="question", request={"question": "Which?", "choices": ["red", "blue"]})
    await post(waiting(asked, kind="question"))
    await post(waiting(kind="budget", effect=None, request={"limit": 5}, reason="escalated"))
    first, second = (json.loads(body) for _, _, body in receiver.requests)
    assert (first["data"]["question"], first["data"]["choices"]) == ("Which?", ["red", "blue"])
    told = {name: second["data"][name] for name in ("kind", "call_id", "tool_name", "args")}
    assert told == {"kind": "budget", "call_id": "", "tool_name": "", "args": None}
    assert second["type"] == "run.escalated"


async def test_receiver_can_check_the_signature(receiver: Receiver) -> None:
    """As the standard says it: over id, timestamp and body, with the decoded secret."""
    for secret in (SECRET, SECRET.removeprefix("whsec_")):
        await hooks.webhook(f"{receiver.url}/200", secret=secret)(waiting())
        _, headers, body = receiver.requests.pop()
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = hmac.new(KEY, signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
        sent = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert abs((datetime.now(UTC) - sent).total_seconds()) < 600


def test_signature_is_that_of_the_reference_implementations() -> None:
    """The example that the libraries of Standard Webhooks are tested with."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    name, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}'
    wanted = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert hooks.sign(key, name, "1614265330", body) == wanted


@pytest.mark.parametrize("status", [301, 307, 400, 404, 410, 429, 500, 503])
async def test_any_answer_but_2xx_is_a_failure(receiver: Receiver, status: int) -> None:
    with pytest.raises(DurablyError, match=rf"^127.0.0.1 answered {status}\.$"):
        await hooks.webhook(f"{receiver.url}/secret/{status}")(waiting())
    assert len(receiver.requests) == 1, "no redirect is followed"


async def test_receiver_that_does_not_answer_is_a_failure(receiver: Receiver) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hooks.webhook(f"{receiver.url}/never", timeout=0.2)(waiting()), 60)


async def test_receiver_that_is_not_there_is_a_failure(receiver: Receiver) -> None:
    nobody = receiver.url.rpartition(":")[0] + ":1"
    with pytest.raises(Exception, match="connect"):
        await hooks.webhook(f"{nobody}/200")(waiting())


async def test_url_is_in_no_log_and_no_repr(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for hook in (
        hooks.slack(f"{receiver.url}/hunter2/200"),
        hooks.webhook(f"{receiver.url}/hunter2/200", secret=SECRET),
    ):
        await hook(waiting())
        assert "hunter2" not in repr(hook) + caplog.text
        assert SECRET not in repr(hook)


@pytest.mark.parametrize("url", ["", "hooks.example", "ftp://hooks.example/x", "https:///x"])
def test_url_that_cannot_be_posted_to_is_refused(url: str) -> None:
    for make in (hooks.webhook, hooks.slack):
        with pytest.raises(ConfigError, match="needs a URL that begins with https"):
            make(url)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_no base64!", "c2hvcnQ=", "é"])
def test_secret_that_cannot_be_is_refused(secret: str) -> None:
    with pytest.raises(ConfigError, match="24 to 64 bytes in base64"):
        hooks.webhook("https://hooks.example", secret=secret)


def test_timeout_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="timeout=0: more than 0"):
        hooks.slack("https://hooks.slack.com/services/x", timeout=0)


# --- Slack


async def test_slack_is_sent_a_text_and_nothing_that_it_would_fetch(receiver: Receiver) -> None:
    await hooks.slack(f"{receiver.url}/200")(waiting())
    ((_, headers, body),) = receiver.requests
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "text": 'Run refund-42 (agent till) waits for approval: refund {"cents": 2000}\n'
        "durably approve refund-42 3.0, or durably deny refund-42 3.0 --reason …",
        "mrkdwn": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def test_slack_text_makes_no_link_and_mentions_nobody() -> None:
    asked = effect(ask="question", request={"question": "<!channel> & <https://evil|here>?"})
    text = hooks.slack_text(waiting(asked, kind="question", run_key="a<b>&c; rm"))
    assert "&lt;!channel&gt; &amp; &lt;https://evil|here&gt;?" in text
    assert "<" not in text and ">" not in text
    assert "durably answer 'a&lt;b&gt;&amp;c; rm' 3.0" in text, "quoted for a shell"


def test_slack_text_says_what_waits_and_how_to_decide() -> None:
    def text(kind: str, **fields: Any) -> str:
        return hooks.slack_text(waiting(kind=kind, **fields))

    assert "Nobody has decided in time: Run" in text("approval", reason="escalated")
    assert "did this call happen? refund" in text("doubt")
    assert "durably resolve refund-42 3.0" in text("doubt")
    assert "in the place of refund" in text("answer")
    choice = {"question": "Which?", "choices": ["red", "blue"]}
    assert "asks:\nWhich?\nChoices: red, blue\n" in text("question", request=choice)
    about_run = text("change", effect=None, request={})
    assert about_run.endswith("durably retry refund-42 lets it go on with the agent as it is now")
    assert "its budget is spent" in text("budget", effect=None, request={})


def test_slack_text_is_short() -> None:
    long = effect(args=json.dumps({"text": "x" * 100_000}))
    assert len(hooks.slack_text(waiting(long))) < 1000
    asked = {"question": "x" * 100_000}
    assert len(hooks.slack_text(waiting(kind="question", request=asked))) < 3000
