"""A ledger, its workers and their provider, and what must hold of every run there.

Owns what is started and ended, and the checks; what goes wrong on the wire is the tests'.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart

from durably import Durably, Run
from support.launcher import Launched, launch
from support.provider import check_as_a_provider_does
from support.spoken import Onlooker
from wire import shop
from wire.provider import PATIENCE_SECONDS, Provider

TESTS = Path(__file__).parents[1]


class Site:
    """One ledger, the workers on it, and a provider.

    Attributes:
        late: a provider that refuses connections until it is started.
    """

    def __init__(self, url: str, provider: Provider, late: Provider, folder: Path) -> None:
        folder.mkdir()
        self.provider = provider
        self.late = late
        self._folder = folder
        self._charges = folder / "charges.jsonl"
        where = {
            "provider": provider.url,
            "late": late.url,
            "charges": str(self._charges),
        }
        self._environment = {"DURABLY_URL": url, "WIRE": json.dumps(where)}
        self._workers: list[Launched] = []

    @asynccontextmanager
    async def app(self) -> AsyncIterator[Durably]:
        """The application, as a client of its ledger."""
        with mock.patch.dict(os.environ, self._environment):
            app = shop.make()
        async with app:
            yield app

    def start_worker(self, *options: str) -> Launched:
        """Start ``durably worker``."""
        arguments = ("worker", "--app", "wire.shop:make", *options)
        log = self._folder / f"worker-{len(self._workers)}.log"
        with mock.patch.dict(os.environ, self._environment), contextlib.chdir(TESTS):
            worker = launch(arguments, log)
        self._workers.append(worker)
        return worker

    def close(self, but_first: int = 0) -> None:
        """Kill all workers but the first."""
        for worker in self._workers[but_first:]:
            if worker.poll() is None:
                kill(worker)

    def logs(self) -> str:
        return "\n".join(log.read_text() for log in sorted(self._folder.glob("worker-*.log")))

    def charges(self, run: Run[Any]) -> list[str]:
        """The notes on what was really charged for a run; fails if anything was charged twice."""
        if not self._charges.exists():
            return []
        lines = map(json.loads, self._charges.read_text().splitlines())
        mine = [line for line in lines if line["run"] == run.key]
        assert max(Counter(line["key"] for line in mine).values(), default=1) == 1, mine
        return [line["note"] for line in mine]

    async def watched(self, run: Run[Any], until: str | None = None) -> Onlooker:
        """Who saw it to its end, or to the first event of a kind."""
        eye = Onlooker()
        async with self.patience():
            async for event in run.watch():
                await eye.take(event)
                if event.kind == until:
                    break
        return eye

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """For what may take as long as a slow machine needs; if it is too long, logs say why."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                yield
        except TimeoutError as error:
            raise AssertionError(f"it takes too long\n{self.logs()}") from error

    async def check(self, run: Run[Any], text: str, charged: list[str]) -> list[ModelMessage]:
        """What holds of every run that ended well: nothing was lost, repeated or counted twice."""
        async with self.patience():
            assert await run.result() == text
        assert self.charges(run) == charged
        history = await run.history()
        check_as_a_provider_does(history)
        responses = [message for message in history if isinstance(message, ModelResponse)]
        assert [part.content for part in history[-1].parts if isinstance(part, TextPart)] == [text]
        await self._check_bill(run, responses)
        assert not any(event.kind == "delta" for event in await run.events())
        assert self.provider.findings() == [], "llmock judges its client"
        return history

    async def _check_bill(self, run: Run[Any], responses: list[ModelResponse]) -> None:
        """Whole answers were each paid, saved and counted once."""
        sent = [r for r in self.provider.requests() if r["status"] == 200 and r["completed"]]
        assert len(sent) == len(responses), (sent, responses)
        record = (await run.refresh()).record
        for name in ("input_tokens", "output_tokens"):
            assert record.usage[name] == sum(getattr(r.usage, name) for r in responses) > 0
        assert record.usage["requests"] == len(responses)
        cost = sum(response.cost().total_price for response in responses)
        assert record.cost_nanousd == round(cost * 10**9) > 0


def kill(worker: Launched) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.wait(PATIENCE_SECONDS) == -signal.SIGKILL


def calls_in(history: list[ModelMessage]) -> Iterator[tuple[str, Any]]:
    """The calls of a history, with their arguments."""
    for message in history:
        for part in message.parts:
            if isinstance(part, ToolCallPart):
                yield part.tool_name, part.args_as_dict()
