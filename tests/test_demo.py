"""The demo ends well, says so with numbers that it read back, and would notice if it had not."""

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from durably.demo.app import make_app
from durably.demo.crew import Crew, WorkerDied
from durably.demo.evidence import gather
from durably.demo.outside import Book, MailServer, PaymentProvider
from durably.demo.policy import decide, order_number
from durably.demo.shop import find_order, open_shop, prices
from durably.demo.site import Site
from durably.demo.tickets import load_tickets
from durably.demo.verdict import Check, judge

pytestmark = pytest.mark.timeout(400)

DEADLINE_SECONDS = 240.0


@dataclass(frozen=True)
class Ended:
    code: int
    output: str
    errors: str
    site: Site


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "durably", "demo", *options]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("demo") / "data"
    done = subprocess.run(
        command("--folder", str(folder)), capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )
    return Ended(done.returncode, done.stdout, done.stderr, Site(folder))


def test_demo_ends_well(demo: Ended) -> None:
    assert (demo.code, demo.errors) == (0, ""), demo.output


@pytest.mark.parametrize(
    "row",
    [
        "workers killed (SIGKILL) 3 3",
        "tickets answered 16 16",
        "answered as called for 16 16",
        "mails, one a ticket 16 16",
        "charges made 5, $223.40 5, $223.40",
        "refunds made 4, $271.50 4, $271.50",
        "charged or refunded twice 0 0",
        "payments in shop's books 9 9",
        "tool calls left open 0 0",
        "saved ones asked for again 0 0",
    ],
)
def test_final_table_has_the_numbers(demo: Ended, row: str) -> None:
    lines = [" ".join(line.split()) for line in demo.output.splitlines()]
    assert any(line.startswith(f"{row} ") and line.endswith(" ok") for line in lines), demo.output


@pytest.mark.parametrize(
    "words",
    [
        "killed with SIGKILL in the middle of a charge for T-1002",
        "killed with SIGKILL in the middle of a refund for T-1012",
        "killed with SIGKILL between two steps of T-1009",
        "T-1002 rescued",
        "T-1002 in doubt → charge_card reconciled: the provider knows it, not repeated",
        "T-1012 suspended: it waits for a person",
        "T-1012 in doubt → operator resolves refund: the provider has it",
        "workers stopped with SIGTERM; exit codes [0, 0]",
    ],
)
def test_demo_says_what_happens(demo: Ended, words: str) -> None:
    assert words in demo.output


async def verdict(site: Site) -> dict[str, Check]:
    async with make_app(site, None) as app:
        evidence = await gather(app, site, load_tickets())
    return {check.what: check for check in judge(evidence, scripted=True, traps=3)}


def repeat_last_line(path: Path) -> None:
    last = path.read_text().splitlines()[-1]
    with path.open("a") as file:
        file.write(f"{last}\n")


def charge_again(site: Site) -> None:
    charge = next(e for e in Book(site.payments).entries() if e["kind"] == "charge")
    PaymentProvider(site.payments).move(
        "charge",
        order=charge["order"],
        cents=charge["cents"],
        ticket=charge["ticket"],
        reference="",
    )


def lose_a_payment(site: Site) -> None:
    lines = site.payments.read_text().splitlines()
    site.payments.write_text("\n".join(lines[1:]) + "\n")


def mail_again(site: Site) -> None:
    MailServer(site.outbox).send(message_id="", to="", subject="", body="", ticket="T-1001")


def ask_for_a_saved_response(site: Site) -> None:
    first = Book(site.bill).entries()[0] | {"attempt": 99}
    Book(site.bill).append(lambda _: first)


def book_again(site: Site) -> None:
    with sqlite3.connect(site.database) as connection:
        connection.execute(
            "INSERT INTO entries (order_number, kind, cents, payment_id, ticket) "
            "SELECT order_number, kind, cents, payment_id, ticket FROM entries "
            "WHERE ticket IS NOT NULL LIMIT 1"
        )


def leave_a_call_open(site: Site) -> None:
    with sqlite3.connect(site.database) as connection:
        connection.execute(
            "UPDATE durably_effects SET state = 'in_doubt', result = NULL "
            "WHERE tool_name = 'refund'"
        )


def forget_a_kill(site: Site) -> None:
    site.kills.write_text("\n".join(site.kills.read_text().splitlines()[1:]) + "\n")


@pytest.mark.parametrize(
    ("tamper", "wrong"),
    [
        (charge_again, "charged or refunded twice"),
        (lose_a_payment, "payments in shop's books"),
        (mail_again, "mails, one a ticket"),
        (ask_for_a_saved_response, "saved ones asked for again"),
        (book_again, "payments in shop's books"),
        (leave_a_call_open, "tool calls left open"),
        (forget_a_kill, "workers killed (SIGKILL)"),
    ],
)
async def test_verdict_notices_what_is_wrong(
    demo: Ended, tmp_path: Path, tamper: Callable[[Site], None], wrong: str
) -> None:
    site = Site(tmp_path / "copy")
    shutil.copytree(demo.site.folder, site.folder)
    assert all(check.ok for check in (await verdict(site)).values())
    tamper(site)
    assert not (await verdict(site))[wrong].ok


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--workers", "0"], "at least 1"),
        (["--model", "no-such-provider:x"], "--model no-such-provider:x"),
        (["--model", "nonsense"], "--model nonsense"),
    ],
)
def test_unusable_options_are_refused_in_one_sentence(options: list[str], sentence: str) -> None:
    done = subprocess.run(command(*options), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_data_of_an_earlier_demo_is_not_overwritten(demo: Ended) -> None:
    again = command("--folder", str(demo.site.folder))
    done = subprocess.run(again, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "earlier demo" in done.stderr


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_no_worker_outlives_the_demo(tmp_path: Path, number: int, code: int) -> None:
    site = Site(tmp_path / "data")
    with subprocess.Popen(
        command("--folder", str(site.folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        # A worker was killed just now: another one works, and a third is about to start.
        assert any("killed with SIGKILL" in line for line in process.stdout)
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(DEADLINE_SECONDS) == code
    asyncio.run(no_worker_is_alive(site))


async def no_worker_is_alive(site: Site) -> None:
    async with make_app(site, None) as app, asyncio.timeout(DEADLINE_SECONDS):
        while True:
            if not any(worker.alive for worker in await app.workers()):
                return
            await asyncio.sleep(0.1)


def test_a_worker_that_ends_by_itself_is_reported(tmp_path: Path) -> None:
    with Crew(Site(tmp_path), "no-such-provider:x") as crew:
        crew.start().process.wait(DEADLINE_SECONDS)
        with pytest.raises(WorkerDied, match=r"worker-1 ended by itself.*no-such-provider"):
            crew.check()


@pytest.mark.parametrize("ticket", load_tickets(), ids=lambda ticket: ticket.id)
def test_scripted_model_understands_every_ticket(ticket, tmp_path: Path) -> None:
    database = tmp_path / "shop.db"
    open_shop(database)
    number = order_number(ticket.prompt)
    order = None if number is None else find_order(database, number) or {"error": "none"}
    decision = decide(ticket.prompt, order, prices(database))
    assert (decision.outcome, decision.cents) == (ticket.expects.outcome, ticket.expects.cents)


def test_mail_server_sends_nothing_twice(tmp_path: Path) -> None:
    server = MailServer(tmp_path / "outbox.jsonl")
    mail = {"message_id": "<1@x>", "to": "a@b", "subject": "s", "body": "b", "ticket": "T-1"}
    assert [server.send(**mail), server.send(**mail)] == [True, False]
    assert [json.loads(line)["to"] for line in server_lines(tmp_path)] == ["a@b"]


def server_lines(folder: Path) -> list[str]:
    return (folder / "outbox.jsonl").read_text().splitlines()
