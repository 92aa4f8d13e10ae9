"""Owns ledgers that are worth moving, and what a test compares of them before and after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durably.ledger import attempts, decisions, queues, reads, runs, steps, workers
from durably.ledger.connect import database_for
from durably.ledger.database import Database
from durably.ledger.operations import Operation
from durably.ledger.written import Ask, CallOutcome, Step
from durably.lifecycle import EffectState, RunState
from durably.records import RunRecord
from support.ledgers import Clock, Ledger, SqliteBackend, done, message, tool_call

TESTS = Path(__file__).parents[1]

ODD = "NUL \0, half \ud800, all \U0001f9fe, ä\u0301, \u2028, 'quoted', \\N, \t, \r\n"
"""What models write: as JSON it is kept to the character, also on Postgres."""

PLAIN = "all \U0001f9fe, ä\u0301, \u2028, 'quoted', \\N, \t, \r\n"
"""The same without what no text of Postgres can hold."""


class Lived(Ledger):
    """A ledger with a past: runs in every state, whose histories and effects are not all alike."""

    async def live(self) -> None:
        """Fill it; its workers are dead by now, since its clock is far behind."""
        for state in RunState:
            await self.run_in(state, f"first {state}")
        big = await self.work(await self.insert("big"), "x" * 1_000_000)
        await self.write(attempts.complete, big.claim, json.dumps("y" * 1_000_000), Step())
        for state in reversed(RunState):
            await self.run_in(state, f"second {state} {PLAIN}")
        stopping = await self.run_in(RunState.EXECUTING, "asked to stop")
        await self.write(runs.cancel, stopping.key, "ana")
        await self.insert("not begun", priority=9, max_attempts=1, delay_seconds=86_400.0 * 365)
        await self.write(queues.pause, "night")
        await self.write(queues.scale, "agents", 3)
        # The last ones are pruned: their ids are gone, and not given again.
        self.clock.advance(-3600)
        for key in ("pruned 1", "pruned 2"):
            run = await self.claim(await self.insert(key))
            await self.write(attempts.complete, run.claim, "1", Step())
        self.clock.advance(3600)
        assert await self.write(runs.prune, 1800.0, "completed", 10) == 2

    async def run_in(self, state: RunState, key: str) -> RunRecord:
        """A run that has worked in two attempts, and is in this state now."""
        options: dict[str, Any] = {
            "tags": json.dumps(["vip", PLAIN]),
            "meta": json.dumps({"odd": ODD}),
            "args": json.dumps({"odd": [ODD, 1.5, None, {}]}),
            "prompt": json.dumps(ODD),
            "fingerprint": f"twin of {key}",
            "priority": 3,
        }
        if state is RunState.SCHEDULED:
            return await self.insert(key, delay_seconds=7 * 86_400.0, **options)
        run = await self.work(await self.insert(key, **options), ODD)
        settled = (run.claim, Step(usage='{"requests": 2}'))
        match state:
            case RunState.EXECUTING:
                await self.write(steps.record_intent, run.claim, tool_call(9))
                return run
            case RunState.AVAILABLE:
                return await self.write(attempts.hand_back, *settled)
            case RunState.RETRYABLE:
                return await self.write(attempts.fail, run.claim, PLAIN, PLAIN, 3600.0, settled[1])
            case RunState.SUSPENDED:
                return await self.ask(run)
            case RunState.COMPLETED:
                return await self.write(attempts.complete, run.claim, json.dumps(ODD), settled[1])
            case RunState.DISCARDED:
                return await self.write(attempts.discard, run.claim, PLAIN, PLAIN, settled[1])
            case RunState.CANCELLED:
                return await self.write(attempts.stop, *settled)

    async def ask(self, run: RunRecord) -> RunRecord:
        """The run, waiting for people: about one of its calls they have decided."""
        shown = json.dumps({"question": ODD, "schema": {"type": "object"}}, indent=1)
        for_a_week = Ask("approval", shown, 7 * 86_400.0, "escalate")
        outcomes = (
            CallOutcome(tool_call(9), EffectState.IN_DOUBT, error=PLAIN, asked=True),
            CallOutcome(tool_call(9, 1), EffectState.AWAITING, asked=True, ask=for_a_week),
            CallOutcome(tool_call(9, 2), EffectState.AWAITING, asked=True, ask=Ask("approval")),
            CallOutcome(tool_call(9, 3), EffectState.AWAITING, asked=True, ask=Ask("question")),
        )
        waiting = {"effects": ["9.0", "9.1", "9.2", "9.3"], "odd": ODD}
        await self.write(attempts.suspend, run.claim, "effects", waiting, Step(outcomes=outcomes))
        edited = json.dumps({"amount": ODD})
        await self.write(decisions.approve, run.key, "9.2", edited, None, "ana", PLAIN)
        answer = ("answered", EffectState.DONE, json.dumps(ODD), None, "ben", "")
        return await self.write(decisions.decide, run.key, "9.3", *answer)

    async def work(self, run: RunRecord, text: str) -> RunRecord:
        """The run in its second attempt, executing, with a history and effects."""
        run = await self.claim(run)
        body = json.dumps({"parts": [{"content": text}]})
        results = Step(
            messages=(message(0, body), message(1, body)),
            outcomes=(
                done(tool_call(1, 0), json.dumps({"return_value": text})),
                CallOutcome(tool_call(1, 1), EffectState.FAILED, error=PLAIN),
                CallOutcome(tool_call(1, 2, policy="read"), EffectState.DONE, "null"),
            ),
            fingerprint="f1",
            events=(("step", {"odd": text}),),
        )
        await self.write(steps.record_step, run.claim, results)
        run = await self.claim(await self.write(attempts.hand_back, run.claim, Step()))
        await self.write(steps.record_step, run.claim, Step(messages=(message(2, f" {body} "),)))
        return run


async def lived(path: Path) -> None:
    """Make a ledger with a past in a file, and let go of it."""
    backend = SqliteBackend(path, clock := Clock())
    await backend.database.open()
    ledger = Lived(backend, clock)
    await ledger.live()
    await ledger.write(workers.remove, "w1")
    await backend.database.close()


# --- what a ledger holds, as anybody reads it through the library


@dataclass(frozen=True)
class Contents:
    """Every record of a ledger, by run."""

    runs: list[RunRecord]
    details: dict[str, tuple[Any, ...]]
    queues: dict[str, Any]


async def contents_of(url: str) -> Contents:
    database = database_for(url)
    await database.open()
    try:
        found = await database.read(reads.list_runs, None, None, None, None, None, 10_000)
        details = {run.key: await _details(database, run) for run in found}
        return Contents(found, details, await database.read(queues.list_settings))
    finally:
        await database.close()


async def _details(database: Database, run: RunRecord) -> tuple[Any, ...]:
    def read() -> Operation[tuple[Any, ...]]:
        return (
            (yield from reads.get_input(run.id)),
            (yield from reads.list_messages(run.id)),
            (yield from reads.list_effects(run.id)),
            (yield from reads.list_decisions(run.id)),
            (yield from reads.list_attempts(run.id)),
            (yield from reads.list_events(run.id, 0, 10_000)),
        )

    return await database.read(read)


# --- a transfer in a process of its own


def transfer_process(
    command: str, source: object, target: str, *boundary: object
) -> subprocess.Popen[str]:
    """Start a process that moves a ledger, or takes that back; see `transfer_process`."""
    return subprocess.Popen(
        [
            sys.executable,
            *("-m", "support.transfer_process", command, str(source), target),
            *map(str, boundary),
        ],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
