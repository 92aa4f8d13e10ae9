"""How attempts end: transient and permanent errors, timeouts, cancelling, leaving."""

import asyncio
import gc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError, UserError

from durably import (
    Durably,
    LeaseLost,
    LedgerClosed,
    LedgerUnavailable,
    RetryPolicy,
    RunCancelled,
    RunDiscarded,
    RunState,
    effects,
)
from durably.execution.control import AttemptControl
from durably.execution.writes import Writes
from durably.lifecycle import AttemptOutcome
from support.databases import ON_SQLITE
from support.scripted import NOW, Script, call


class Response:
    """The part of an HTTP client's response that says when to come back."""

    def __init__(self, seconds: str) -> None:
        self.headers = {"retry-after": seconds}


class ProviderError(Exception):
    """An error as a provider's client raises it: status and response on it."""

    def __init__(self, status_code: int, response: Response) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code
        self.response = response


async def one_attempt(app: Durably, error: Exception, **options: Any) -> Any:
    agent = Agent(Script(error).model, name="support")
    app.register(agent, **options)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() >= 1
    return await run.refresh()


@ON_SQLITE
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_a_permanent_error_discards_at_once_and_says_why(app: Durably, status: int) -> None:
    run = await one_attempt(app, ModelHTTPError(status, "model", {"error": "no"}), retry=NOW)
    assert run.state is RunState.DISCARDED
    assert str(status) in str(run.record.error)
    with pytest.raises(RunDiscarded, match=str(status)):
        run.output()
    (attempt,) = await run.attempts()
    assert attempt.outcome is AttemptOutcome.DISCARDED
    assert "Traceback" in str(attempt.traceback)


@ON_SQLITE
async def test_a_users_mistake_is_permanent(app: Durably) -> None:
    run = await one_attempt(app, UserError("no such thing"), retry=NOW)
    assert run.state is RunState.DISCARDED


@ON_SQLITE
@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
async def test_a_transient_error_is_tried_again_after_backoff(app: Durably, status: int) -> None:
    policy = RetryPolicy(initial_seconds=100, jitter=0)
    run = await one_attempt(app, ModelHTTPError(status, "model", None), retry=policy)
    assert run.state is RunState.RETRYABLE
    assert run.record.failures == 1
    (attempt,) = await run.attempts()
    wait = run.record.scheduled_at - attempt.ended_at
    assert abs(wait - timedelta(seconds=100)) < timedelta(seconds=1)


@ON_SQLITE
async def test_retry_after_is_obeyed(app: Durably) -> None:
    error = ModelHTTPError(429, "model", None)
    error.__cause__ = ProviderError(429, Response("3600"))
    run = await one_attempt(app, error, retry=NOW)
    assert run.state is RunState.RETRYABLE
    (attempt,) = await run.attempts()
    wait = run.record.scheduled_at - attempt.ended_at
    assert abs(wait - timedelta(seconds=3600)) < timedelta(seconds=1)


async def test_max_attempts_counts_failures(app: Durably) -> None:
    run = await one_attempt(app, RuntimeError("boom"), retry=NOW, max_attempts=3)
    assert run.state is RunState.DISCARDED
    assert (run.record.attempt, run.record.failures, run.record.crashes) == (3, 3, 0)
    assert run.record.error == "RuntimeError: boom"


async def test_an_operators_retry_keeps_the_history(app: Durably, log: list[str]) -> None:
    script = Script([call("look")], "done")
    script.fail_once[1] = ModelHTTPError(401, "model", None)
    agent = Agent(script.model, name="support")

    @agent.tool_plain
    def look() -> str:
        log.append("look")
        return "seen"

    app.register(agent)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).state is RunState.DISCARDED
    await run.retry()
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert log == ["look"]
    assert script.requests == 3


def waiting_agent(started: asyncio.Event, *, ignore_cancel: bool = False) -> Agent[None, str]:
    agent = Agent(Script([call("wait")], "done").model, name="waiter")

    @agent.tool_plain(metadata=effects.READ)
    async def wait() -> str:
        started.set()
        await asyncio.Event().wait()
        return "never"

    return agent


async def until(condition: Callable[[], Any], seconds: float = 120) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_an_attempt_timeout_counts_as_a_failure(app: Durably) -> None:
    agent = waiting_agent(asyncio.Event())
    app.register(agent, timeout=0.2, retry=NOW, max_attempts=2)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 2
    await run.refresh()
    assert run.state is RunState.DISCARDED
    assert "0.2 s" in str(run.record.error)


async def test_cancel_reaches_an_executing_run(app: Durably) -> None:
    started = asyncio.Event()
    agent = waiting_agent(started)
    app.register(agent)
    run = await app.enqueue(agent, "hi")
    async with app.worker():
        await started.wait()
        await run.cancel(by="ana")
        with pytest.raises(RunCancelled):
            await run.result(timeout=120)
    kinds = [event.kind for event in await run.events()]
    assert kinds[-2:] == ["cancel_requested", "cancelled"]
    (attempt,) = await run.attempts()
    assert attempt.outcome is AttemptOutcome.CANCELLED


async def test_cancel_of_a_waiting_run_is_final_at_once(app: Durably) -> None:
    agent = waiting_agent(asyncio.Event())
    app.register(agent)
    run = await app.enqueue(agent, "hi", delay=3600)
    assert (await run.cancel()).state is RunState.CANCELLED


async def test_what_runs_after_the_grace_period_is_handed_back(app: Durably) -> None:
    started = asyncio.Event()
    agent = waiting_agent(started)
    app.register(agent)
    run = await app.enqueue(agent, "hi")
    async with app.worker(grace=0.1):
        await started.wait()
    await run.refresh()
    assert run.state is RunState.AVAILABLE
    assert (run.record.failures, run.record.crashes) == (0, 0)
    (attempt,) = await run.attempts()
    assert attempt.outcome is AttemptOutcome.HANDED_BACK


async def test_a_leaving_worker_hands_back_at_the_next_checkpoint(
    app: Durably, log: list[str]
) -> None:
    started, leave = asyncio.Event(), asyncio.Event()
    script = Script([call("step")], [call("step")], "done")
    agent = Agent(script.model, name="steps")

    @agent.tool_plain
    async def step() -> str:
        log.append("step")
        started.set()
        await leave.wait()
        return "ok"

    app.register(agent)
    run = await app.enqueue(agent, "hi")
    async with app.worker() as worker:
        await started.wait()
        leaving = asyncio.create_task(worker.stop())
        await until(lambda: _true(worker.leaving))
        leave.set()
        await leaving
    await run.refresh()
    assert run.state is RunState.AVAILABLE
    assert script.requests == 1
    assert log == ["step"]
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert log == ["step", "step"]
    assert (run.record.attempt, run.record.failures) == (2, 0)


async def _true(value: bool) -> bool:
    return value


async def test_a_blocked_sync_tool_does_not_hold_up_a_cancel(app: Durably) -> None:
    import threading

    started, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    agent = Agent(Script([call("block")], "done").model, name="blocker")

    @agent.tool_plain
    def block() -> str:
        loop.call_soon_threadsafe(started.set)
        release.wait(120)
        return "late"

    app.register(agent)
    run = await app.enqueue(agent, "hi")
    async with app.worker():
        await started.wait()
        await run.cancel()
        try:
            with pytest.raises(RunCancelled):
                await run.result(timeout=120)
        finally:
            release.set()
    (effect,) = await run.effects()
    assert effect.state == "in_doubt"


async def test_app_run_continues_what_an_earlier_script_left(app: Durably, log: list[str]) -> None:
    script = Script([call("look")], "done")
    script.fail_once[1] = ModelHTTPError(401, "model", None)
    agent = Agent(script.model, name="support")

    @agent.tool_plain
    def look() -> str:
        log.append("look")
        return "seen"

    with pytest.raises(RunDiscarded):
        await app.run(agent, "hi", key="k")
    await (await app.get("k")).retry()
    assert await app.run(agent, "hi", key="k") == "done"
    assert await app.run(agent, "hi", key="k") == "done"
    assert log == ["look"]


async def test_waiting_on_a_closed_ledger_says_so(app: Durably) -> None:
    agent = waiting_agent(asyncio.Event())
    app.register(agent)
    run = await app.enqueue(agent, "hi")
    waiting = asyncio.create_task(run.result(timeout=120))
    await asyncio.sleep(0)
    await app.close()
    with pytest.raises(LedgerClosed, match="is not open"):
        await run.result(timeout=120)
    with pytest.raises(LedgerClosed):
        await waiting


@ON_SQLITE
async def test_a_tool_that_ignores_being_cancelled_does_not_hold_its_run(app: Durably) -> None:
    started, release = asyncio.Event(), asyncio.Event()
    agent = Agent(Script([call("stubborn")], "done").model, name="stubborn")

    @agent.tool_plain(metadata=effects.READ)
    async def stubborn() -> str:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    app.register(agent)
    run = await app.enqueue(agent, "hi")
    async with app.worker():
        await started.wait()
        await run.cancel()
        try:
            with pytest.raises(RunCancelled):
                await run.result(timeout=120)
        finally:
            release.set()


@ON_SQLITE
async def test_a_write_that_fails_once_its_attempt_is_called_off_is_no_unheard_error(
    app: Durably,
) -> None:
    """Losing a run is no surprise: asyncio must not say that nobody looked at the error."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    agent = Agent(Script("hello").model, name="support")
    run = await app.enqueue(agent, "hi")
    begun, refused = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        begun.set()
        await refused.wait()
        raise LeaseLost("another attempt owns the run")

    writes = Writes(app.ledger, run.record, AttemptControl())
    attempt = asyncio.create_task(writes.persist(write))
    await begun.wait()
    attempt.cancel()
    await asyncio.sleep(0)
    refused.set()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    del attempt
    gc.collect()
    await asyncio.sleep(0)
    assert not unheard


async def test_a_worker_whose_own_lease_is_over_claims_nothing(
    app: Durably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health is not progress: it would lose the run at once, and claim it, and lose it again."""

    def unwritten(*_: Any) -> None:
        raise LedgerUnavailable("no heartbeat gets through")

    agent = Agent(Script("hello").model, name="support")
    app.register(agent)
    async with app.worker(lease=1.0) as worker:
        with monkeypatch.context() as patched:
            patched.setattr(app.ledger, "write_blocking", unwritten)
            await _until(lambda: not worker.alive)
            run = await app.enqueue(agent, "hi")
            await asyncio.sleep(1.0)  # Time enough to claim it dozens of times.
            assert worker.free("agents") == 0
        assert await run.result(timeout=300) == "hello"
    assert run.record.attempt == 1


async def _until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(300):
        while not reached():
            await asyncio.sleep(0.02)
