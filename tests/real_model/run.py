"""``make real-model``: a worker is killed while a real language model's tokens stream.

Another worker finishes the run; what must hold is checked, and a short report is printed. Nothing
here depends on what the model says: it is small, and says little of sense.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from pydantic_ai.messages import ModelRequest, ModelResponse

from durably import Draft, Durably, Event, Run, RunState
from real_model import writer

TESTS = Path(__file__).parents[1]
PATIENCE_SECONDS = 1200.0
SEEN_CHARS = 30
"""How much of a message is seen before the worker that has it made is killed."""

LAUNCHED = re.compile(r"launch_slot_: .* processing task")
"""What the server says when it begins to answer a request."""


class Stage:
    """The model's server, the ledger, and the workers that were started."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._workers = 0
        self._server_log = folder / "server.log"
        serve = [sys.executable, str(TESTS / "real_model" / "serve.py"), str(folder)]
        self._start(serve, self._server_log, stdin=subprocess.PIPE)
        address = folder / "address"
        wait_for("the model to be loaded", address.exists, self._server_log)
        url = f"sqlite:///{folder / 'ledger.db'}"
        os.environ |= {"MODEL_URL": address.read_text(), "DURABLY_URL": url}

    def start_worker(self) -> subprocess.Popen[bytes]:
        """``durably worker``"""
        self._workers += 1
        command = [sys.executable, "-m", "durably", "worker", "--app", "real_model.writer:make"]
        log = self._folder / f"worker-{self._workers}.log"
        return self._start([*command, "--lease", "5"], log)

    def requests(self) -> int:
        """How many requests the server has begun to answer."""
        return len(LAUNCHED.findall(self._server_log.read_text(errors="replace")))

    def logs(self) -> str:
        logs = sorted(self._folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in logs)

    def _start(self, command: list[str], log: Path, **options: Any) -> subprocess.Popen[bytes]:
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=TESTS, stdout=out, stderr=out, **options)
        self._stack.callback(end, process)
        return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(PATIENCE_SECONDS)


def wait_for(what: str, look: Callable[[], object], log: Path) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not look():
        assert time.monotonic() < give_up_at, f"no end of waiting for {what}\n{log.read_text()}"
        time.sleep(0.1)


async def main() -> None:
    with folder() as where, ExitStack() as stack:
        began = time.monotonic()
        stage = Stage(where, stack)
        print(f"model loaded after {time.monotonic() - began:.1f} s", flush=True)
        async with watched_closely(stage), writer.make() as app:
            await killed_while_it_writes(app, stage)
    print("real model: all is well")


async def killed_while_it_writes(app: Durably, stage: Stage) -> None:
    prompt = "Write a short story about a lamp that nobody could switch off."
    run = await app.enqueue("writer", prompt, key="story")
    began = time.monotonic()
    victim = stage.start_worker()
    draft, events, killed_at, seen = Draft(), list[Event](), 0.0, ""
    async for event in run.watch():
        events.append(event)
        draft.apply(event)
        if not killed_at and len(draft.text) >= SEEN_CHARS:
            seen, killed_at = draft.text, time.monotonic()
            victim.send_signal(signal.SIGKILL)
            assert victim.wait(PATIENCE_SECONDS) == -signal.SIGKILL
            stage.start_worker()
    ended = time.monotonic()
    output = await check(run, requests=stage.requests())
    record, attempts = run.record, await run.attempts()
    assert killed_at, "nothing was seen while it was made"
    assert (record.attempt, record.crashes, record.failures) == (2, 1, 0), record
    kinds = [event.kind for event in events]
    assert kinds.count("rescued") == kinds.count("withdrawn") == 1, kinds
    assert draft.parts == [] and not any(e.kind == "delta" for e in await run.events())
    report(
        "worker killed while it writes",
        seen_before_the_kill=f"{len(seen.split())} words: {seen!r}",
        killed_after=f"{killed_at - began:.1f} s",
        finished_after=f"{ended - began:.1f} s",
        attempts=", ".join(f"{a.attempt} {a.outcome}" for a in attempts),
        events=" ".join(kind for i, kind in enumerate(kinds) if kinds[i - 1 : i] != [kind]),
        requests_begun=stage.requests(),
        answers_saved=1,
        tokens=json.dumps({k: v for k, v in record.usage.items() if k.endswith("_tokens") and v}),
        output=repr(output[:200]),
    )


async def check(run: Run[Any], *, requests: int) -> Any:
    """One answer was saved and counted, of two that were begun; returns the output."""
    record = (await run.refresh()).record
    assert record.state is RunState.COMPLETED, record
    question, answer = await run.history()
    assert isinstance(question, ModelRequest) and isinstance(answer, ModelResponse)
    assert requests == 2, f"{requests} requests for one answer"
    for name in ("input_tokens", "output_tokens"):
        assert record.usage[name] == getattr(answer.usage, name) > 0
    output = run.output()
    assert output == answer.text and output.strip(), answer
    return output


@asynccontextmanager
async def watched_closely(stage: Stage) -> AsyncIterator[None]:
    """Whatever goes wrong, what the processes said is shown."""
    try:
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            yield
    except BaseException:
        print(stage.logs(), file=sys.stderr)
        raise


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="durably-real-model-") as made:
        yield Path(made)


def report(title: str, **facts: object) -> None:
    print(f"\n{title}")
    for name, value in facts.items():
        print(f"  {name.replace('_', ' '):22}{value}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
