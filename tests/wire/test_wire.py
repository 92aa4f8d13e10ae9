"""Runs whose models are reached over HTTP, with the real clients, and a wire that breaks."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from durably import Durably, Run, RunState
from support.sample import longer
from support.spoken import Onlooker
from wire.provider import PATIENCE_SECONDS, breaks, calls, fails, hangs, holds, says
from wire.shop import PROTOCOLS
from wire.site import Site, calls_in, kill

pytestmark = pytest.mark.thin

PROTOCOL = pytest.mark.parametrize("protocol", PROTOCOLS)

TEXT = "Order 42 is charged: two lamps, and they are on their way."
NOTE = "two lamps, to be sent to the address that is on the invoice"
CHARGE = calls("charge", number=42, note=NOTE)

IN_TEXT, IN_ARGUMENTS = 7, 5
"""Chunks after which a stream of any protocol is in the middle of TEXT, or of NOTE."""


async def ask(app: Durably, agent: str, *then: dict[str, Any], **options: Any) -> Run[Any]:
    """Have an order charged, and the provider do this from then on."""
    key = f"{agent}-{secrets.token_hex(4)}"
    args = {"then": [*then]}
    return await app.enqueue(agent, "Charge order 42.", key=key, args=args, **options)


@PROTOCOL
@pytest.mark.parametrize("stream", [False, True])
async def test_answers_over_the_wire_are_saved_acted_on_and_priced_once(
    site: Site, app: Durably, protocol: str, stream: bool
) -> None:
    site.provider.will(calls("find_order", number=42), CHARGE)
    run = await ask(app, protocol, says(TEXT), stream=stream)
    eye = await site.watched(run)
    history = await site.check(run, TEXT, [NOTE])
    expected = [("find_order", {"number": 42}), ("charge", {"number": 42, "note": NOTE})]
    assert list(calls_in(history)) == expected
    # With Anthropic's default of tokens, pydantic-ai has every answer streamed.
    streamed = stream or protocol == "anthropic"
    assert [request["stream"] for request in site.provider.requests()] == [streamed] * 3
    assert stream or "delta" not in eye.kinds


@PROTOCOL
async def test_rate_limit_is_waited_out_and_nothing_is_done_or_paid_again(
    site: Site, app: Durably, protocol: str
) -> None:
    site.provider.will(CHARGE)
    run = await ask(app, protocol, fails(429, retry_after=3), says(TEXT))
    await site.check(run, TEXT, [NOTE])
    assert site.provider.statuses() == [200, 429, 200]
    first, second = await run.attempts()
    assert first.ended_at is not None and "429" in (first.error or "")
    assert second.started_at - first.ended_at >= timedelta(seconds=3)


async def test_rate_limited_run_is_due_when_the_provider_says(site: Site, app: Durably) -> None:
    """And holds nothing meanwhile."""
    site.provider.will(CHARGE)
    run = await ask(app, "anthropic", fails(429, retry_after=1800), says(TEXT))
    await site.watched(run, until="failed")
    record = (await run.refresh()).record
    assert (record.state, record.worker_id, record.failures) == (RunState.RETRYABLE, None, 1)
    (attempt,) = await run.attempts()
    assert attempt.ended_at is not None
    wait = record.scheduled_at - attempt.ended_at
    assert timedelta(minutes=29) < wait < timedelta(minutes=31)
    assert site.provider.statuses() == [200, 429]


@PROTOCOL
@pytest.mark.parametrize("status", [longer(500), 529])
async def test_answers_of_an_ailing_provider_are_asked_for_again(
    site: Site, app: Durably, protocol: str, status: int
) -> None:
    site.provider.will(CHARGE)
    run = await ask(app, protocol, fails(status, times=2, retry_after=1), says(TEXT))
    await site.check(run, TEXT, [NOTE])
    assert site.provider.statuses() == [200, status, status, 200]
    assert (await run.refresh()).record.failures == 2
    for before, after in pairwise(await run.attempts()):
        assert before.ended_at is not None
        assert after.started_at - before.ended_at >= timedelta(seconds=1)


@pytest.mark.parametrize("protocol", ["chat", longer("responses"), "anthropic"])
async def test_tries_of_the_client_and_of_the_run_multiply(
    site: Site, app: Durably, protocol: str
) -> None:
    """A client that tries three times, in a run that may fail twice: six requests."""
    site.provider.will(CHARGE)
    failing = fails(503, times=6, retry_after=0.1)
    run = await ask(app, f"{protocol}-patient", failing, says(TEXT), max_attempts=2)
    await site.watched(run)
    record = (await run.refresh()).record
    assert (record.state, record.failures) == (RunState.DISCARDED, 2)
    tries = [r["sdk_retry_count"] for r in site.provider.requests()]
    assert tries == [0, 0, 1, 2, 0, 1, 2]
    await run.retry()
    await site.check(run, TEXT, [NOTE])


@PROTOCOL
@pytest.mark.parametrize("where", ["text", "arguments"])
@pytest.mark.parametrize("how", ["disconnect", "truncate", longer("malformed")])
async def test_half_a_message_is_withdrawn_and_asked_for_again_once(
    site: Site, app: Durably, protocol: str, how: str, where: str
) -> None:
    """However the stream breaks; also if it looks as if it had ended well: truncated."""
    chunk = IN_TEXT if where == "text" else IN_ARGUMENTS
    broken = [holds(chunk), breaks(how, chunk)]
    then = [says(TEXT)] if where == "arguments" else [says(TEXT), *broken, says(TEXT)]
    site.provider.will(CHARGE, *([*broken, CHARGE] if where == "arguments" else []))
    run = await ask(app, protocol, *then, stream=True)
    eye = Onlooker()
    async with site.patience(), asyncio.TaskGroup() as group:
        group.create_task(eye.watch(run))
        await eye.sees(lambda d: d.text if where == "text" else d.parts)()
        site.provider.release()
    await site.check(run, TEXT, [NOTE])
    requests = site.provider.requests()
    assert [request["completed"] for request in requests].count(False) == 1
    assert (len(requests), (await run.refresh()).record.failures) == (3, 1)
    assert eye.kinds.count("withdrawn") == 1 and eye.draft.parts == []
    assert all(TEXT.startswith(half) for half in eye.texts)


async def test_half_a_message_is_not_taken_for_whole_where_nobody_watches(
    site: Site, app: Durably
) -> None:
    """Anthropic's long answers come in streams, whether the run streams or not."""
    site.provider.will(CHARGE)
    run = await ask(app, "anthropic", says(TEXT), breaks("truncate", IN_TEXT), says(TEXT))
    await site.check(run, TEXT, [NOTE])
    assert (await run.refresh()).record.failures == 1


async def test_call_whose_arguments_never_came_is_not_made(site: Site, app: Durably) -> None:
    """A tool with nothing but defaults would be called with them."""
    site.provider.will(calls("find_any"), breaks("truncate", 2), says(TEXT))
    run = await ask(app, "chat", stream=True)
    await site.check(run, TEXT, [])
    assert len(site.provider.requests()) == 2


async def test_provider_that_is_not_there_is_asked_until_it_is(site: Site, app: Durably) -> None:
    runs = [
        await ask(app, f"{protocol}-late", says(TEXT), max_attempts=100_000)
        for protocol in PROTOCOLS
    ]
    for run in runs:
        await site.watched(run, until="failed")
    site.late.start()
    for run in runs:
        async with site.patience():
            await run.result()
        first, *_, last = await run.attempts()
        assert "Connect" in (first.error or ""), first
        assert last.error is None


@PROTOCOL
@pytest.mark.parametrize("how", [longer("no answer"), "half an answer"])
async def test_provider_that_hangs_is_left_after_the_timeout_of_the_client(
    site: Site, app: Durably, protocol: str, how: str
) -> None:
    site.provider.will(CHARGE)
    fault = hangs(30) if how == "no answer" else breaks("stall", IN_TEXT, stall_seconds=30)
    answers = [says(TEXT)] * 20
    agent = f"{protocol}-hasty"
    run = await ask(app, agent, fault, *answers, stream=how != "no answer", max_attempts=20)
    async with site.patience():
        assert await run.result() == TEXT
    assert site.charges(run) == [NOTE]
    first = (await run.attempts())[0]
    assert "Timeout" in (first.error or ""), first


@PROTOCOL
@pytest.mark.parametrize("where", ["text", longer("arguments")])
async def test_worker_killed_in_the_middle_of_a_stream_is_succeeded(
    site: Site, app: Durably, protocol: str, where: str
) -> None:
    options = ("--queue", "victims=1", "--lease", "3")
    stalls = {"stall_seconds": 3 * PATIENCE_SECONDS}
    if where == "text":
        site.provider.will(CHARGE)
        then = [says(TEXT), breaks("stall", IN_TEXT, **stalls), says(TEXT)]
    else:
        site.provider.will(CHARGE, breaks("stall", IN_ARGUMENTS, **stalls), CHARGE)
        then = [says(TEXT)]
    victim = site.start_worker(*options)
    run = await ask(app, protocol, *then, stream=True, queue="victims")
    eye = Onlooker()
    async with site.patience(), asyncio.TaskGroup() as group:
        group.create_task(eye.watch(run))
        await eye.sees(lambda d: d.text if where == "text" else d.parts)()
        kill(victim)
        site.start_worker(*options)
    await site.check(run, TEXT, [NOTE])
    record = (await run.refresh()).record
    assert (record.attempt, record.crashes, record.failures) == (2, 1, 0)
    assert eye.kinds.count("rescued") == 1 and eye.draft.parts == []
