"""Hooks are called at least once, again when they fail, and hold up nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from durably import boundaries
from durably.calling import CALLS_AT_ONCE, Hook, Hooks
from durably.errors import ConfigError, LedgerUnavailable
from durably.ledger import attempts, decisions, reads, runs
from durably.ledger.database import Database
from durably.ledger.operations import Operation
from durably.ledger.written import Ask, CallOutcome, Step
from durably.lifecycle import EffectState, RunState
from durably.notifying import CLAIM_SECONDS, MAX_TRIES, RETRY, Notifier
from durably.records import RunRecord, Waiting
from support.ledgers import PATIENCE_SECONDS, Ledger, tool_call, until

SHORT_SECONDS = 0.05
"""How long a hook has in tests in which it hangs."""


def notifier(ledger: Ledger, *hooks: Hook, seconds: float = PATIENCE_SECONDS) -> Notifier:
    named = Hooks()
    for hook in hooks:
        named.add(hook)
    return Notifier(ledger.database, named, seconds)


async def waiting(ledger: Ledger, key: str | None = None) -> RunRecord:
    """A run that waits for approval of its call."""
    run = await ledger.executing() if key is None else await ledger.executing(key=key)
    asked = CallOutcome(tool_call(), EffectState.AWAITING, asked=True, ask=Ask("approval"))
    step = Step(outcomes=(asked,))
    return await ledger.write(attempts.suspend, run.claim, "effects", {"effects": ["0.0"]}, step)


async def approve(ledger: Ledger, run: RunRecord) -> RunRecord:
    return await ledger.write(decisions.approve, run.key, "0.0", None, None, "ann", "")


class Told:
    """A hook that keeps what it is told, and raises what it is to raise."""

    def __init__(self, *raises: Exception) -> None:
        self.items: list[Waiting] = []
        self.raises = list(raises)

    async def __call__(self, item: Waiting) -> None:
        self.items.append(item)
        if self.raises:
            raise self.raises.pop(0)

    @property
    def keys(self) -> list[str]:
        return [item.run_key for item in self.items]


def stored(ledger: Ledger, column: str) -> list[Any]:
    return [row for (row,) in ledger.backend.select(f"SELECT {column} FROM durably_notices")]


# --- once, if all goes well


async def test_what_waits_is_told_once_to_every_hook(ledger: Ledger) -> None:
    run = await waiting(ledger)
    one, two = Told(), Told()
    tell = notifier(ledger, one, two)
    assert await tell.send_due() == 1
    assert await tell.send_due() == 0
    assert (one.keys, two.keys) == ([run.key], [run.key])
    assert (one.items[0].tries, one.items[0].reason, one.items[0].kind) == (
        1,
        "waiting",
        "approval",
    )
    assert one.items == two.items


async def test_what_was_decided_before_is_not_told(ledger: Ledger) -> None:
    await approve(ledger, await waiting(ledger))
    await ledger.write(runs.cancel, (await waiting(ledger)).key, "me")
    told = Told()
    assert await notifier(ledger, told).send_due() == 2
    assert told.items == []
    ledger.clock.advance(10 * CLAIM_SECONDS)
    assert await notifier(ledger, told).send_due() == 0, "dropped for good"


async def test_without_hooks_notices_stay_for_those_that_come(ledger: Ledger) -> None:
    run = await waiting(ledger)
    decided = await waiting(ledger)
    assert await notifier(ledger).send_due() == 0
    ledger.clock.advance(30 * 86_400)
    await approve(ledger, decided)
    told = Told()
    await notifier(ledger, told).send_due()
    assert told.keys == [run.key]


async def test_sync_hook_runs_in_a_thread(ledger: Ledger) -> None:
    await waiting(ledger)
    threads: list[threading.Thread] = []
    await notifier(ledger, lambda _: threads.append(threading.current_thread())).send_due()
    assert threads and threads[0] is not threading.main_thread()


async def test_sync_hook_that_gives_something_to_await_is_awaited(ledger: Ledger) -> None:
    run = await waiting(ledger)
    told = Told()
    await notifier(ledger, lambda item: told(item)).send_due()
    assert told.keys == [run.key]


# --- again, if it does not


async def test_hook_that_fails_is_called_again_ever_later(ledger: Ledger) -> None:
    await waiting(ledger)
    told = Told(*[ValueError("no") for _ in range(4)])
    tell = notifier(ledger, told)
    waits: list[float] = []
    for _ in range(5):
        before = ledger.clock.now
        while not await tell.send_due():
            ledger.clock.advance(1)
        waits.append((ledger.clock.now - before).total_seconds())
    assert [item.tries for item in told.items] == [1, 2, 3, 4, 5]
    assert waits[0] == 0
    for number, seconds in enumerate(waits[1:]):
        assert RETRY.delay(number + 1, lambda: 1.0) <= seconds <= 5 * 2**number + 1
    assert len({item.id for item in told.items}) == 1, "the receiver recognises it"
    ledger.clock.advance(86_400)
    assert await tell.send_due() == 0
    assert stored(ledger, "error") == [None]


async def test_run_of_which_nobody_can_be_told_can_be_decided(ledger: Ledger) -> None:
    run = await waiting(ledger)
    told = Told(ValueError("no"))
    tell = notifier(ledger, told)
    await tell.send_due()
    assert (await approve(ledger, run)).state is RunState.AVAILABLE
    ledger.clock.advance(60)
    assert await tell.send_due() == 1
    assert len(told.items) == 1, "decided meanwhile"


async def test_hook_that_took_it_is_not_called_again_for_one_that_did_not(ledger: Ledger) -> None:
    await waiting(ledger)

    def good(item: Waiting) -> None:
        taken.append(item.run_key)

    def bad(item: Waiting) -> None:
        tries.append(item.tries)
        raise OSError("away")

    taken: list[str] = []
    tries: list[int] = []
    for _ in range(3):
        await notifier(ledger, bad, good).send_due()  # another worker each time
        ledger.clock.advance(60)
    assert (len(taken), tries) == (1, [1, 2, 3])


async def test_worker_that_dies_before_it_says_so_leaves_it_to_another(ledger: Ledger) -> None:
    run = await waiting(ledger)
    told = Told()

    def strike(name: str) -> None:
        if name == "notice:told":
            raise SystemError("as good as dead: nothing is written of what was sent")

    boundaries.observe(strike)
    try:
        await notifier(ledger, told).send_due()
    finally:
        boundaries.observe(None)
    assert (told.keys, stored(ledger, "sent_at")) == ([run.key], [None])
    assert await notifier(ledger, told).send_due() == 0, "it may still be about to say so"
    ledger.clock.advance(CLAIM_SECONDS)
    await notifier(ledger, told).send_due()
    assert [item.tries for item in told.items] == [1, 2]
    assert len({item.id for item in told.items}) == 1
    assert stored(ledger, "sent_at") != [None]


async def test_giving_up_is_said(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    run = await waiting(ledger)
    told = Told(*[ValueError("no") for _ in range(MAX_TRIES)])
    tell = notifier(ledger, told)
    with caplog.at_level(logging.ERROR, "durably"):
        while len(told.items) < MAX_TRIES:
            assert not caplog.records
            assert await tell.send_due() == 1
            ledger.clock.advance(RETRY.max_seconds)
    (record,) = caplog.records
    assert run.key in record.getMessage() and "given up" in record.getMessage()
    ledger.clock.advance(30 * 86_400)
    assert await tell.send_due() == 0
    events = await ledger.read(reads.list_events, run.id, 0, 100)
    (event,) = [e for e in events if e.kind == "notice_failed"]
    assert event.data["tries"] == MAX_TRIES
    assert "ValueError: no" in event.data["error"]


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_it_is_tried_for_about_three_days(jitter: float) -> None:
    seconds = sum(RETRY.delay(number, lambda: jitter) for number in range(1, MAX_TRIES))
    assert 2.4 < seconds / 86_400 < 3.6


async def test_escalation_is_told_as_well(ledger: Ledger) -> None:
    run = await ledger.executing()
    ask = Ask("approval", within_seconds=5.0, on_expiry="escalate")
    asked = CallOutcome(tool_call(), EffectState.AWAITING, asked=True, ask=ask)
    await ledger.write(attempts.suspend, run.claim, "effects", {}, Step(outcomes=(asked,)))
    told = Told()
    tell = notifier(ledger, told)
    await tell.send_due()
    ledger.clock.advance(6)
    await ledger.write(decisions.expire, run.key, "0.0")
    await tell.send_due()
    assert [item.reason for item in told.items] == ["waiting", "escalated"]
    assert len({item.id for item in told.items}) == 2


# --- hooks that do not come back


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What hooks wait for; comes after the test."""
    event = threading.Event()
    yield event
    event.set()


async def test_hook_that_hangs_in_its_thread_counts_as_failed(
    ledger: Ledger, never: threading.Event
) -> None:
    await waiting(ledger)
    await notifier(ledger, lambda _: never.wait(), seconds=SHORT_SECONDS).send_due()
    (error,) = stored(ledger, "error")
    assert "TimeoutError: no answer in 0.05 s" in error
    assert stored(ledger, "sent_at") == [None]


async def test_hook_that_hangs_although_it_is_cancelled_counts_as_failed(ledger: Ledger) -> None:
    await waiting(ledger)
    end = asyncio.Event()
    cancelled = 0

    async def stubborn(_: Waiting) -> None:
        nonlocal cancelled
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                cancelled += 1

    await notifier(ledger, stubborn, seconds=SHORT_SECONDS).send_due()
    assert cancelled == 1
    (error,) = stored(ledger, "error")
    assert "TimeoutError" in error
    end.set()


async def test_hook_that_hangs_holds_up_no_other_hook_and_takes_few_threads(
    ledger: Ledger, never: threading.Event
) -> None:
    """Every notice has its own try, but no more threads hang than the hook has places."""
    keys = [(await waiting(ledger)).key for _ in range(3 * CALLS_AT_ONCE)]
    entered: list[str] = []

    def hangs(item: Waiting) -> None:
        entered.append(item.run_key)
        never.wait()

    told = Told()
    tell = notifier(ledger, hangs, told, seconds=SHORT_SECONDS)
    for _ in range(3):
        await tell.send_due()
        ledger.clock.advance(60)
    assert sorted(told.keys) == sorted(keys), "each once"
    assert len(entered) == CALLS_AT_ONCE


async def test_hook_that_hangs_holds_up_no_heartbeat_and_no_claim(
    ledger: Ledger, never: threading.Event
) -> None:
    await waiting(ledger)
    entered = threading.Event()

    def hangs(_: Waiting) -> None:
        entered.set()
        never.wait()

    duty = asyncio.create_task(notifier(ledger, hangs).run())
    await until(entered.is_set, "the hook is called")
    run = await ledger.claim(await ledger.insert("other"))
    await ledger.write(attempts.complete, run.claim, '"done"', Step())
    assert (await ledger.get(run)).state is RunState.COMPLETED
    assert not duty.done()
    duty.cancel()
    with pytest.raises(asyncio.CancelledError):
        await duty


async def test_worker_that_leaves_lets_hooks_end(ledger: Ledger) -> None:
    await waiting(ledger)
    entered, end = asyncio.Event(), asyncio.Event()

    async def slow(_: Waiting) -> None:
        entered.set()
        await end.wait()

    duty = asyncio.create_task(notifier(ledger, slow).run())
    await asyncio.wait_for(entered.wait(), PATIENCE_SECONDS)
    duty.cancel()
    await asyncio.sleep(0)
    end.set()
    await asyncio.wait({duty})
    assert stored(ledger, "sent_at") != [None]


# --- what else may go wrong


class Away:
    """A database whose next writes find nobody, whatever they are."""

    def __init__(self, database: Database, times: int) -> None:
        self.database = database
        self.read = database.read
        self.times = times

    async def write[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if self.times:
            self.times -= 1
            raise LedgerUnavailable("restarting")
        return await self.database.write(operation, *args, **kwargs)


async def test_what_was_sent_is_not_sent_again_because_the_database_was_away(
    ledger: Ledger,
) -> None:
    await waiting(ledger)
    database: Any = Away(ledger.database, 0)
    told = Told()

    async def tell_in_an_outage(item: Waiting) -> None:
        database.times = 2
        await told(item)

    named = Hooks()
    named.add(tell_in_an_outage)
    assert await Notifier(database, named).send_due() == 1
    assert (database.times, len(told.items)) == (0, 1)
    assert stored(ledger, "sent_at") != [None]


async def test_database_that_is_away_is_asked_again(ledger: Ledger) -> None:
    run = await waiting(ledger)
    database: Any = Away(ledger.database, 1)
    named, told = Hooks(), Told()
    named.add(told)
    duty = asyncio.create_task(Notifier(database, named).run())
    await until(lambda: bool(told.items), "told once it is back")
    duty.cancel()
    await asyncio.wait({duty})
    assert told.keys == [run.key]


async def test_error_is_kept_without_the_secret_in_an_url(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    await waiting(ledger)
    url = "https://bot:hunter2@hooks.slack.com/services/T0/B0/hunter2?token=hunter2"
    told = Told(OSError(f"Client error '404' for url '{url}'\n{'x' * 5000}"))
    await notifier(ledger, told).send_due()
    (error,) = stored(ledger, "error")
    assert "OSError: Client error '404' for url 'https://hooks.slack.com/…'" in error
    assert len(error) < 400
    assert "hunter2" not in error + caplog.text


def test_hook_is_something_to_call() -> None:
    nothing: Any = "https://example.com"
    with pytest.raises(ConfigError, match="str is no function"):
        Hooks().add(nothing)


def test_hooks_are_known_by_name() -> None:
    def tell(item: Waiting, to: str = "") -> None: ...

    named, told = Hooks(), Told()
    for hook in (tell, tell, told, partial(tell, to="ann"), lambda _: None):
        named.add(hook)
    assert [name.rpartition(".")[2] for name, _ in named] == [
        *("tell", "Told", "tell (2)", "<lambda>"),
    ]
