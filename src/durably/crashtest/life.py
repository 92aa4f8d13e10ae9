"""What happens in one process of a crash test, from the application's import to its end.

Owns the order; what others decide meanwhile is in `company`, what is noted in `observed`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic_ai import models

from durably import boundaries
from durably.app import Durably
from durably.crashtest.company import Manners, Stuck, family_of, keep_company
from durably.crashtest.job import Job
from durably.crashtest.notes import RUN, Notes
from durably.crashtest.observed import observe_agents
from durably.crashtest.strikes import Trace
from durably.crashtest.tape import Tape
from durably.errors import DurablyError
from durably.execution.call import current_call
from durably.ledger import workers
from durably.run import Run

GRACE_SECONDS = 5.0


def live(path: Path, load: Callable[[], Durably]) -> None:
    """Do the job in a file, with the application that ``load`` gives."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
    job = Job.read(path)
    notes = Notes(Path(job.folder), job.key, job.role)
    tape = Tape(Path(job.tape), notes)
    app = load()
    app.move_to(job.url)
    if job.role == "record":
        observe_agents(app, tape.recorder, notes)
    else:
        models.ALLOW_MODEL_REQUESTS = False
        observe_agents(app, tape.player, notes)
    asyncio.run(_work(app, job, notes))


async def _work(app: Durably, job: Job, notes: Notes) -> None:
    found: dict[str, Any] = {"stuck": None}
    trace = Trace()
    await app.open()
    if job.role == "finish":
        run: Run[Any] = await app.get(job.key)
        found["before"] = [await _facts_of(member) for member in await family_of(run)]
        await _end_leases(app)
    else:
        run = await app.enqueue(job.agent, job.prompt, key=job.key, args=job.args)
    boundaries.observe(_observer(job, trace, notes))
    try:
        async with app.worker(grace=GRACE_SECONDS) as worker:
            await keep_company(app, run, worker, _manners(job), notes)
            if job.role == "finish":
                # All is done. How a worker leaves is part of the others' lives, and takes a while.
                await _leave_result(job, run, trace, found)
                logging.shutdown()
                os._exit(0)
    except Stuck as stuck:
        found["stuck"] = str(stuck)
    boundaries.observe(None)
    await _leave_result(job, run, trace, found)
    await app.close()


async def _leave_result(job: Job, run: Run[Any], trace: Trace, found: dict[str, Any]) -> None:
    found["runs"] = [await _facts_of(member) for member in await family_of(run)]
    found["reached"] = trace.reached
    job.result.write_text(json.dumps(found).replace(job.key, RUN), "utf-8")


async def _end_leases(app: Durably) -> None:
    """As if their time were over: every worker known so far is dead."""
    for worker in await app.workers():
        await app.ledger.write(workers.remove, worker.id)


def _observer(job: Job, trace: Trace, notes: Notes) -> boundaries.Observer:
    def observer(name: str) -> None:
        if name == "step:after":
            _note_step("ended", notes)  # Before anything else: it has ended.
        if trace.note(name) == job.strike:
            notes.write("killed", at=str(job.strike))
            os.kill(os.getpid(), signal.SIGKILL)
            while True:  # Until the signal is delivered.
                time.sleep(1)
        if name == "step:before":
            _note_step("began", notes)

    return observer


def _note_step(what: str, notes: Notes) -> None:
    with suppress(DurablyError):
        call = current_call()
        facts = {"run": call.run_key, "call": call.call_id, "tool": call.tool_name}
        notes.write(what, **facts, policy=None, key=call.idempotency_key, result=None)


def _manners(job: Job) -> Manners:
    results: dict[str, str | None] = {}
    if job.pattern is not None:
        for file in Path(job.pattern).glob("*.result.json"):
            for run in json.loads(file.read_text("utf-8"))["runs"]:
                results |= {effect["key"]: effect["result"] for effect in run["effects"]}
    return Manners(job.approve, job.answers, job.signals, results)


async def _facts_of(run: Run[Any]) -> dict[str, Any]:
    """What the ledger holds of a run, as JSON."""
    record = run.record
    return {
        "run": record.key,
        "agent": record.agent,
        "state": str(record.state),
        "output": record.output,
        "error": record.error,
        "attempts": [
            {"attempt": attempt.attempt, "outcome": attempt.outcome and str(attempt.outcome)}
            for attempt in await run.attempts()
        ],
        "messages": [json.loads(message.body) for message in await run.messages()],
        "effects": [
            {
                "call": effect.call_id,
                "tool": effect.tool_name,
                "policy": effect.policy,
                "on_doubt": effect.on_doubt,
                "state": str(effect.state),
                "asked": effect.asked,
                "ask": effect.ask,
                "key": effect.idempotency_key,
                "result": effect.result,
                "error": effect.error,
            }
            for effect in await run.effects()
        ],
    }
