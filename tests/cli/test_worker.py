"""``durably worker`` as the process that it is: signals, exit codes, handing runs back."""

import asyncio
import json
import signal

import psycopg
import pytest

from support.desk import Desk, wait_until

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@SIGNALS
@pytest.mark.usefixtures("on_sqlite")
def test_signal_hands_runs_back_and_another_worker_resumes_them(desk: Desk, number: int) -> None:
    hand_over(desk, number)


@pytest.mark.usefixtures("on_postgres")
def test_sigterm_hands_runs_back_on_postgres_too(desk: Desk) -> None:
    hand_over(desk, signal.SIGTERM)


def hand_over(desk: Desk, number: int) -> None:
    """One worker is told to leave in the middle of a run, and another one ends the run."""
    desk.enqueue("patient", "k")
    first = desk.start("worker", "--app", "desk:make", "--name", "first", "--queue", "agents=3")
    first.wait_to_say(f"serves agents=3; lease 30 s, grace 30 s, ledger {desk.url}")
    wait_until(lambda: "wait" in desk.notes())
    first.signal(number)
    first.wait_to_say("leaves; 1 attempts under way")
    (desk.folder / "go").touch()
    assert first.wait() == 0
    assert "Traceback" not in first.err
    run = json.loads(desk.run("show", "k", "--json").out)["run"]
    assert (run["state"], run["failures"]) == ("available", 0)

    second = desk.start("worker", "--app", "desk:make", "--name", "second")
    assert desk.run("watch", "k").code == 0
    second.signal(number)
    assert second.wait() == 0
    shown = json.loads(desk.run("show", "k", "--json").out)
    assert shown["run"]["output"] == "wait: done"
    assert [a["outcome"] for a in shown["attempts"]] == ["handed_back", "completed"]
    assert [a["worker_id"].split(":")[0] for a in shown["attempts"]] == ["first", "second"]
    # Neither the request nor the tool call of the first attempt is made again.
    assert desk.notes() == ["model wait", "wait", "model wait"]


@pytest.mark.usefixtures("on_sqlite")
@SIGNALS
def test_second_signal_ends_the_process_at_once(desk: Desk, number: int) -> None:
    desk.enqueue("stuck", "k")
    worker = desk.start("worker", "--app", "desk:make", "--grace", "1h")
    wait_until(lambda: "block" in desk.notes())
    worker.signal(number)
    worker.wait_to_say("leaves; 1 attempts under way")
    worker.signal(number)
    assert worker.wait() == 128 + number


def test_tool_that_blocks_a_thread_for_ever_cannot_keep_the_process(desk: Desk) -> None:
    desk.enqueue("stuck", "k")
    worker = desk.start("worker", "--app", "desk:make", "--grace", "0")
    wait_until(lambda: "block" in desk.notes())
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    run = json.loads(desk.run("show", "k", "--json").out)["run"]
    assert (run["state"], run["failures"]) == ("available", 0)
    assert desk.run("queues").out.splitlines()[1].split()[:2] == ["agents", "0"]


@pytest.mark.usefixtures("on_sqlite")
def test_worker_that_cannot_start_says_why_and_exits_2(desk: Desk) -> None:
    worker = desk.start("worker", "--app", "desk:make", "--lease", "0.2")
    assert worker.wait() == 2
    assert worker.err.splitlines()[-1] == "Error: A lease of 0.2 s is too short; at least 1 s."
    assert "Traceback" not in worker.err


@pytest.mark.usefixtures("on_sqlite")
def test_worker_whose_duty_fails_exits_1(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.desk import make
    from durably.cli import worker

    async def failing(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("durably.worker.maintain", failing)
    monkeypatch.setattr(worker, "_stop_on_signals", lambda *_: None)
    options = worker.Options(queues=None, lease=None, grace=None, name=None)
    assert asyncio.run(worker._serve(make(), options)) == 1


@pytest.mark.usefixtures("on_sqlite")
def test_what_was_imported_is_not_looked_at_when_memory_is_collected(desk: Desk) -> None:
    """A full collection of it takes a tenth of a second, in which nothing goes on."""
    worker = desk.start("worker", "--app", "desk:make")
    ran = desk.run("enqueue", "collector", "hello", "--wait", "--app", "desk:make")
    looked_at, left_alone = map(int, ran.out.split())
    assert looked_at < left_alone
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_enqueue_wait_prints_the_output_or_exits_1(desk: Desk) -> None:
    (desk.folder / "broken").touch()
    worker = desk.start("worker", "--app", "desk:make")
    worker.wait_to_say("serves agents=20")
    ran = desk.run("enqueue", "echo", "hello", "--wait", "--app", "desk:make")
    assert (ran.code, ran.out, ran.err) == (0, "5: hello\n", "")
    ran = desk.run("enqueue", "nobody", "hello", "--wait")
    assert ran.code == 1
    assert "No agent named 'nobody' is registered" in ran.err
    ran = desk.run("enqueue", "cashier", "hello", "--key", "k", "--wait")
    assert ran.code == 1
    assert "Run 'k' waits for a decision on 1.0" in ran.err
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


@pytest.mark.usefixtures("on_postgres")
def test_metrics_reach_oban_web(desk: Desk) -> None:
    with psycopg.connect(desk.url, autocommit=True) as connection:
        connection.execute('LISTEN "public.oban_gossip"')  # how each node's queues do
        worker = desk.start("worker", "--app", "desk:make", "--metrics")
        worker.wait_to_say("serves agents=20")
        (notice,) = connection.notifies(timeout=120, stop_after=1)
    assert notice.channel == "public.oban_gossip"
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


@pytest.mark.usefixtures("on_sqlite")
def test_metrics_without_oban_are_refused(desk: Desk) -> None:
    worker = desk.start("worker", "--app", "desk:make", "--metrics")
    assert worker.wait() == 2
    assert worker.err.splitlines()[-1] == (
        f"Error: Options for Oban (metrics) need a ledger on PostgreSQL; this one is {desk.url}."
    )
