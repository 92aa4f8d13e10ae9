"""``durably web`` as a process: how it starts, what it says, how it ends."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.desk import APPS, Desk, Process, wait_until

TOKEN = "a token that somebody chose"


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    desk = Desk(tmp_path, capsys)
    monkeypatch.setenv("DESK", str(tmp_path))
    monkeypatch.setenv("DURABLY_URL", desk.url)
    monkeypatch.delenv("DURABLY_WEB_TOKEN", raising=False)
    monkeypatch.chdir(APPS)
    yield desk
    desk.close()


def address(process: Process) -> str:
    """Where it says that it is; then it answers."""
    wait_until(lambda: "Dashboard http" in process.err or process.process.poll() is not None)
    found = re.search(r"^Dashboard (\S+)$", process.err, re.MULTILINE)
    assert found, process.err
    wait_until(lambda: _answers(found[1]))
    return found[1]


def _answers(url: str) -> bool:
    try:
        return httpx.get(httpx.URL(url).join("/healthz"), timeout=60).status_code < 500
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_although_somebody_watches(desk: Desk, number: int) -> None:
    desk.enqueue("echo", "k/1", delay=3600)
    process = desk.start("web", "--url", desk.url, "--port", "0", "--log-level", "debug")
    link = address(process)
    with httpx.Client(
        base_url=link.partition("?")[0], timeout=60, follow_redirects=True
    ) as browser:
        assert browser.get(link).status_code == 200
        token = link.partition("?token=")[2]
        # Without the application any agent may be enqueued.
        asked = {"agent": "nobody here", "prompt": "hi", "key": "new"}
        assert browser.post("/api/runs", json=asked).status_code == 201
        with browser.stream("GET", "/api/runs/k/1/watch") as stream:
            lines = stream.iter_lines()
            assert "event: enqueued" in (next(lines) for _ in range(5))
            process.signal(number)
            assert list(lines)[-1] == ""
    assert process.wait() == 0
    assert process.err.count(token) == 1 and "GET" not in process.err


def test_it_serves_an_application_below_a_path_with_a_token_of_ones_own(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURABLY_WEB_TOKEN", TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = desk.run("web", "--url", desk.url, "--port", port)
        assert ran.code == 2 and f"port {port}: Address already in use" in ran.err
    options = ("--app", "desk:make", "--port", "0", "--root-path", "/ops", "--title", "Our desk")
    process = desk.start("web", *options)
    link = address(process)
    assert link.endswith("/ops/") and TOKEN not in process.err
    own = {"Authorization": f"Bearer {TOKEN}"}
    there = httpx.URL(link).copy_with(path="/")
    page = httpx.get(there, headers=own)
    assert "Our desk" in page.text and 'href="/ops/' in page.text
    stranger = own | {"Host": f"rebound.example:{there.port}"}
    assert httpx.get(there, headers=stranger).status_code == 421
    assert httpx.get(there, headers=own | {"Host": f"localhost:{there.port}"}).status_code == 200


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--host", "0.0.0.0"), "set a token of your own in DURABLY_WEB_TOKEN or --token-file"),
        (("--host", "::", "--no-login"), "--no-login would let everybody act who reaches ::"),
        (("--host", "0.0.0.0", "--token-file", "short"), "a token has 16 characters"),
        (("--token-file", "none"), "cannot be read from none"),
        (("--no-login", "--token-file", "short"), "Give --no-login or a token, not both"),
        (("--token-file", "short", "--viewer-token-file", "short"), "those who may look could act"),
        (("--root-path", "ops/"), "write a path such as /ops"),
        (("--host", "192.0.2.1", "--token-file", "long"), "Cannot listen on 192.0.2.1"),
    ],
)
def test_what_cannot_be_safe_is_refused_in_one_sentence(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.chdir(desk.folder)
    (desk.folder / "short").write_text("short\n")
    (desk.folder / "long").write_text(TOKEN)
    ran = desk.run("web", "--url", desk.url, *options)
    assert ran.code == 2 and sentence in ran.err
    assert ran.err.count("\n") == 1 and ran.out == ""
