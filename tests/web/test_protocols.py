"""Chat front ends on a durable run: the answer is the same, whatever dies on the way to it."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from durably.web import TokenAccess, create_app
from support.desk import APPS, Process, wait_until
from support.serving import serving
from support.web import OPERATOR

BEARER = {"Authorization": f"Bearer {OPERATOR}"}


class Stage:
    """A server, workers, and a folder with the files that the model waits for."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.client = httpx.Client(base_url=url, headers=BEARER, timeout=120)
        self._workers: list[Process] = []

    def worker(self) -> Process:
        arguments = ("worker", "--app", "stage:make", "--lease", "1")
        worker = Process(self.folder, len(self._workers), arguments)
        self._workers.append(worker)
        return worker

    def go(self, name: str) -> None:
        (self.folder / name).touch()

    def listen(self, path: str, body: dict[str, Any] | None) -> Listener:
        return Listener(self.url, path, body)

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self.client.close()


class Listener:
    """Somebody who reads a stream of events, in a thread."""

    def __init__(self, url: str, path: str, body: dict[str, Any] | None) -> None:
        self.events: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._listen, args=(url + path, body))
        self._thread.start()

    def _listen(self, url: str, body: dict[str, Any] | None) -> None:
        method = "GET" if body is None else "POST"
        with httpx.stream(method, url, json=body, headers=BEARER, timeout=120) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    self.events.append(json.loads(line[6:]))

    def wait_for(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        wait_until(lambda: any(map(condition, self.events)) or not self._thread.is_alive())
        return next(filter(condition, self.events))

    def all(self) -> list[dict[str, Any]]:
        self._thread.join(100)
        assert not self._thread.is_alive()
        return self.events


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("STAGE", str(tmp_path))
    monkeypatch.setenv("DURABLY_URL", f"sqlite:///{tmp_path}/ledger.db")
    monkeypatch.chdir(APPS)
    from apps.stage import make

    with serving(create_app(make(), access=TokenAccess(OPERATOR))) as url:
        stage = Stage(url, tmp_path)
        try:
            yield stage
        finally:
            stage.close()


def vercel(chat: str, message: str, text: str, **more: Any) -> dict[str, Any]:
    said = {"id": message, "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"trigger": "submit-message", "id": chat, "messages": [said]} | more


def ag_ui(chat: str, message: str, text: str, run: str = "run-1") -> dict[str, Any]:
    said = {"id": message, "role": "user", "content": text}
    asked: dict[str, Any] = {"threadId": chat, "runId": run, "messages": [said]}
    return asked | {"state": {}, "tools": [], "context": [], "forwardedProps": {}}


def vercel_texts(events: list[dict[str, Any]]) -> list[str]:
    """The texts of a message, as docs/api.md says a front end keeps them."""
    parts: list[dict[str, Any]] = []
    for event in events:
        match event["type"]:
            case "start-step":
                parts.append({"type": "step-start"})
            case "text-start":
                parts.append({"type": "text", "text": "", "id": event["id"]})
            case "text-delta":
                part = next(part for part in parts if part.get("id") == event["id"])
                part["text"] += event["delta"]
            case "data-durably-withdrawn":
                while parts.pop()["type"] != "step-start":
                    pass
    return [part["text"] for part in parts if part["type"] == "text"]


def ag_ui_texts(events: list[dict[str, Any]]) -> list[str]:
    """The assistant's texts, as the protocol's own client keeps messages."""
    messages: dict[str, str] = {}
    for event in events:
        match event["type"]:
            case "TEXT_MESSAGE_START":
                messages[event["messageId"]] = ""
            case "TEXT_MESSAGE_CONTENT":
                messages[event["messageId"]] += event["delta"]
            case "MESSAGES_SNAPSHOT":
                kept = [m for m in event["messages"] if m["role"] == "assistant"]
                messages = {m["id"]: m.get("content") or "" for m in kept}
    return [text for text in messages.values() if text]


def test_a_worker_dies_in_the_middle_of_a_message_and_no_half_is_left(stage: Stage) -> None:
    script = [
        [{"text": "I look. "}, {"call": "look_up", "args": '{"number": 7}'}],
        [{"text": "The first half, "}, {"wait": "go"}, {"text": "and the second."}],
    ]
    prompt = json.dumps(script)
    first = stage.worker()
    # One message is one run, whichever protocol it is sent in.
    told = stage.listen("/api/ui/vercel/actor", vercel("chat/1", "m1", prompt))
    also = stage.listen("/api/ui/ag-ui/actor", ag_ui("chat/1", "m1", prompt))
    told.wait_for(lambda event: "The first" in event.get("delta", ""))
    also.wait_for(lambda event: "The first" in str(event.get("delta", "")))
    assert stage.client.get("/api/ui/vercel/actor/chat/1/messages").json()["messages"][-1][
        "parts"
    ] == [{"type": "text", "text": prompt, "state": "done"}]
    back = stage.listen("/api/ui/vercel/actor/chat/1/stream", None)
    back.wait_for(lambda event: "The first" in event.get("delta", ""))

    first.signal(signal.SIGKILL)
    first.wait()
    stage.go("go")
    stage.worker()
    whole = ["I look. ", "The first half, and the second."]
    for listener in (told, back):
        events = listener.all()
        assert vercel_texts(events) == whole
        kinds = [event["type"] for event in events]
        assert kinds[0] == "start" and kinds[-1] == "finish"
        assert kinds.count("data-durably-withdrawn") == 1
        assert kinds.count("tool-input-available") == kinds.count("tool-output-available") == 1
    assert ag_ui_texts(also.all()) == whole
    assert [also.events[0]["type"], also.events[-1]["type"]] == ["RUN_STARTED", "RUN_FINISHED"]

    # Sent again, it is answered again, and neither asks the model nor knows of the half.
    (run,) = stage.client.get("/api/runs").json()["runs"]
    again = stage.listen("/api/ui/vercel/actor", vercel("chat/1", "m1", prompt)).all()
    assert vercel_texts(again) == whole
    assert not any(event["type"].startswith("data-") for event in again)
    assert ag_ui_texts(
        stage.listen("/api/ui/ag-ui/actor", ag_ui("chat/1", "m1", prompt)).all()
    ) == (whole)
    (after,) = stage.client.get("/api/runs").json()["runs"]
    assert after == run and run["state"] == "completed" and run["thread"] == "chat/1"
    assert stage.client.get("/api/ui/vercel/actor/chat/1/stream").status_code == 204
    shown = stage.client.get("/api/ui/vercel/actor/chat/1/messages").json()["messages"]
    texts = [p["text"] for m in shown for p in m["parts"] if p["type"] == "text"]
    assert texts == [prompt, *whole]


def test_a_chat_says_what_waits_and_goes_on_when_somebody_decides(stage: Stage) -> None:
    script = [
        [{"call": "refund", "args": '{"order": 1, "cents": 5}'}],
        [{"call": "refund", "args": '{"order": 2, "cents": 6}'}],
        [{"text": "Both are done."}],
    ]
    prompt = json.dumps(script)
    stage.worker()
    told = stage.listen("/api/ui/vercel/actor?sdk=6", vercel("c", "m", prompt))
    also = stage.listen("/api/ui/ag-ui/actor", ag_ui("c", "m", prompt))
    for number in (1, 2):
        waits = [
            told.wait_for(lambda e, n=number: _asks(e.get("data"), n)),
            also.wait_for(lambda e, n=number: _asks(e.get("value"), n)),
        ]
        assert waits[0]["data"] == waits[1]["value"]
        data = waits[0]["data"]
        (call,) = data["calls"]
        assert call["decisions"] == ["approve", "edit", "deny"] and "approve" in data["waits"]
        path = f"/api/runs/{data['run']}/approve"
        assert stage.client.post(path, json={"call_id": call["call_id"]}).status_code == 200
    events = told.all()
    assert vercel_texts(events) == ["Both are done."] == ag_ui_texts(also.all())
    # The provider gave both calls the same id; a client must be able to tell them apart.
    inputs = [e for e in events if e["type"] == "tool-input-available"]
    outputs = [e for e in events if e["type"] == "tool-output-available"]
    asked = [e for e in events if e["type"] == "tool-approval-request"]
    ids = [e["toolCallId"] for e in inputs]
    assert [e["input"]["order"] for e in inputs] == [1, 2] and len(set(ids)) == 2
    assert ids == [e["toolCallId"] for e in outputs] == [e["toolCallId"] for e in asked]
    assert [e["output"] for e in outputs] == ["refunded 5", "refunded 6"]


def _asks(told: Any, number: int) -> bool:
    calls = (told or {}).get("calls") or []
    return any(call["call_id"] == f"{2 * number - 1}.0" for call in calls)


def test_what_is_no_message_of_a_user_is_refused(stage: Stage) -> None:
    answer = {"id": "a", "role": "assistant", "parts": [{"type": "text", "text": "hm"}]}
    asked = vercel("c", "m", "hi")
    step = {"id": "m", "role": "user", "parts": [{"type": "step-start"}]}
    for path, body, said in (
        ("vercel", asked | {"messages": [*asked["messages"], answer]}, "no user's"),
        ("vercel", asked | {"messages": [step]}, "cannot be read"),
        ("vercel", asked | {"messages": []}, "no user's"),
        ("vercel", {"id": "c"}, "no request of the protocol"),
        ("ag-ui", {"threadId": "c"}, "no request of the protocol"),
        ("ag-ui", ag_ui("c", "", "hi"), "needs an id"),
        ("ag-ui", ag_ui("c\0", "m", "hi"), "no database can store"),
    ):
        refused = stage.client.post(f"/api/ui/{path}/actor", json=body)
        assert refused.status_code == 422 and said in refused.json()["detail"], refused.text
    assert stage.client.get("/api/runs").json()["runs"] == []
