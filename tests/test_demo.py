"""The demo ends well, says so with numbers that it read back, and would notice if it had not."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from durably.demo.app import make_app
from durably.demo.checks import Check
from durably.demo.crew import Crew, WorkerDied
from durably.demo.evidence import gather
from durably.demo.outside import Book, MailServer, PaymentProvider
from durably.demo.performance import BEFORE_PAYING, TRAPS
from durably.demo.policy import Decision, decide, order_number, settle
from durably.demo.postgres import PostgresSchema
from durably.demo.shop import find_order, prices
from durably.demo.site import Site
from durably.demo.tickets import load_tickets
from durably.demo.tools import APPROVED
from durably.demo.traps import Sprung, Traps
from durably.demo.verdict import judge
from support.demo import DEADLINE_SECONDS, no_worker_is_alive
from support.postgres_run import Postgres
from support.sample import longer

pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True)
class Ended:
    code: int
    output: str
    errors: str
    site: Site


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "durably", "demo", *options]


def run_demo(folder: Path, url: str | None) -> Ended:
    done = subprocess.run(
        command("--folder", str(folder)),
        # Another application's SQLite file is none of the demo's business.
        env={**os.environ, "DURABLY_URL": url or "sqlite:///elsewhere.db"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    return Ended(done.returncode, done.stdout, done.stderr, Site(folder, url))


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str | None:
    """A database for a demo: None for SQLite, which makes a file by itself."""
    return None if request.param == "sqlite" else request.getfixturevalue("database_url")


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("demo") / "data"
    if request.param == "sqlite":
        yield run_demo(folder, None)
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    with postgres.database() as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE precious AS SELECT 42 AS answer")
        yield run_demo(folder, url)


def test_demo_ends_well(demo: Ended) -> None:
    assert (demo.code, demo.errors) == (0, ""), demo.output


def test_demo_says_where_it_works(demo: Ended) -> None:
    database = demo.site.database
    assert demo.output.startswith(f"{database.name}: {database.shown}\n")
    assert f"The data: {demo.site.folder}" in demo.output


def test_demo_with_oban_says_so(demo: Ended) -> None:
    said = ["each with a job in Oban", "Oban has a new job for it", "jobs of Oban", "oban_jobs"]
    on_postgres = demo.site.postgres_url is not None
    output = " ".join(demo.output.split())  # lines are wrapped
    assert [words in output for words in said] == [on_postgres] * len(said)


def test_demo_leaves_the_users_own_tables_alone(demo: Ended) -> None:
    if demo.site.postgres_url is None:
        assert {path.name for path in demo.site.folder.iterdir()} >= {"support.db", "logs"}
        return
    with psycopg.connect(demo.site.postgres_url) as connection:
        assert connection.execute("SELECT answer FROM precious").fetchall() == [(42,)]
        found = connection.execute(
            "SELECT DISTINCT nspname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname !~ '^(pg_|information_schema)' AND relname <> 'precious'"
        )
        assert found.fetchall() == [("durably_demo",)]


@pytest.mark.parametrize(
    "row",
    [
        "workers killed (SIGKILL) 4 4",
        "tickets answered 16 16",
        "answered as called for 16 16",
        "mails, one a ticket 16 16",
        "charges made 5, $223.40 5, $223.40",
        "refunds made 4, $310.50 4, $310.50",
        "charged or refunded twice 0 0",
        "approvals asked 2 2",
        "decided by office 2 2",
        "paid once, when approved 2, $255.00 2, $255.00",
        "paid without approval 0 0",
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
        "T-1007 asks for approval: refund of $129.00 for order 40209, above $100.00",
        "another process runs `durably approve T-1007 3.0 --by office`",
        "T-1007 refund approved by office",
        "T-1010 refund approved by office",
        "killed with SIGKILL between the approval of a refund for T-10",
        "resolves refund: the provider has nothing: run it again",
        "workers stopped with SIGTERM; exit codes [0, 0]",
    ],
)
def test_demo_says_what_happens(demo: Ended, words: str) -> None:
    assert words in demo.output


async def verdict(site: Site) -> dict[str, Check]:
    async with make_app(site, None) as app:
        evidence = await gather(app, site, load_tickets())
    return {check.what: check for check in judge(evidence, scripted=True, traps=len(TRAPS))}


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


def execute(site: Site, statement: str) -> None:
    if site.postgres_url is None:
        path = site.database.url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)
    else:
        with psycopg.connect(site.postgres_url) as connection:
            site.database.write(connection, statement)


def book_again(site: Site) -> None:
    execute(
        site,
        "INSERT INTO entries (order_number, kind, cents, payment_id, ticket) "
        "SELECT order_number, kind, cents, payment_id, ticket FROM entries "
        "WHERE ticket IS NOT NULL LIMIT 1",
    )


def leave_a_call_open(site: Site) -> None:
    execute(
        site,
        "UPDATE durably_effects SET state = 'in_doubt', result = NULL WHERE tool_name = 'refund'",
    )


def pay_a_refund_unasked(site: Site) -> None:
    PaymentProvider(site.payments).move(
        "refund", order=40205, cents=15_000, ticket="T-1013", reference=""
    )


def pay_an_approved_refund_again(site: Site) -> None:
    approval = Book(site.approvals).entries()[0]
    paid = next(e for e in Book(site.payments).entries() if e["ticket"] == approval["ticket"])
    Book(site.payments).append(lambda entries: paid | {"id": f"re_{len(entries) + 1:04d}"})


def approve_after_the_payment(site: Site) -> None:
    first, *others = Book(site.approvals).entries()
    late = first | {"at": Book(site.outbox).entries()[-1]["at"]}
    site.approvals.write_text("".join(f"{json.dumps(entry)}\n" for entry in (late, *others)))


def forget_an_approval(site: Site) -> None:
    site.approvals.write_text("\n".join(site.approvals.read_text().splitlines()[1:]) + "\n")


def decide_in_another_name(site: Site) -> None:
    execute(site, "UPDATE durably_decisions SET by = 'mallory' WHERE decision = 'approved'")


def forget_that_it_asked(site: Site) -> None:
    execute(site, "DELETE FROM durably_events WHERE kind = 'effect'")


def forget_a_kill(site: Site) -> None:
    site.kills.write_text("\n".join(site.kills.read_text().splitlines()[1:]) + "\n")


IN_FILES = [
    (charge_again, "charged or refunded twice"),
    (lose_a_payment, "payments in shop's books"),
    (mail_again, "mails, one a ticket"),
    (ask_for_a_saved_response, "saved ones asked for again"),
    (forget_a_kill, "workers killed (SIGKILL)"),
    (pay_a_refund_unasked, "paid without approval"),
    (pay_an_approved_refund_again, "paid once, when approved"),
    (approve_after_the_payment, "paid once, when approved"),
    (approve_after_the_payment, "paid without approval"),
    (forget_an_approval, "decided by office"),
]

IN_TABLES = [
    (book_again, "payments in shop's books"),
    (leave_a_call_open, "tool calls left open"),
    (decide_in_another_name, "decided by office"),
    (forget_that_it_asked, "approvals asked"),
]


@pytest.mark.thin  # The same files, whatever the database.
@pytest.mark.parametrize(("tamper", "wrong"), IN_FILES)
async def test_verdict_notices_what_is_wrong_in_files(
    demo: Ended, copy: Site, tamper: Callable[[Site], None], wrong: str
) -> None:
    await notices(copy, tamper, wrong)


@pytest.mark.parametrize(("tamper", "wrong"), IN_TABLES)
async def test_verdict_notices_what_is_wrong_in_tables(
    demo: Ended, copy: Site, tamper: Callable[[Site], None], wrong: str
) -> None:
    await notices(copy, tamper, wrong)


async def notices(copy: Site, tamper: Callable[[Site], None], wrong: str) -> None:
    assert all(check.ok for check in (await verdict(copy)).values())
    tamper(copy)
    assert not (await verdict(copy))[wrong].ok


async def test_verdict_notices_a_job_that_still_waits(demo: Ended, copy: Site) -> None:
    if copy.postgres_url is None:
        assert "jobs that still wait" not in await verdict(copy)
        return
    execute(copy, "UPDATE oban_jobs SET state = 'scheduled' WHERE id = 1")
    assert not (await verdict(copy))["jobs that still wait"].ok


@pytest.fixture
def copy(demo: Ended, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A copy of what the demo left, to be changed."""
    site = replace(demo.site, folder=tmp_path / "copy")
    shutil.copytree(demo.site.folder, site.folder)
    if demo.site.postgres_url is None:
        yield site
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    name = demo.site.postgres_url.rpartition("/")[2]
    with postgres.database(template=name) as url:
        yield replace(site, postgres_url=url)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--workers", "0"], "at least 1"),
        (["--model", "no-such-provider:x"], "--model no-such-provider:x"),
        (["--model", "nonsense"], "--model nonsense"),
        (["--url", "sqlite:///shop.db"], "--url is for postgresql"),
        (["--url", "postgresql://nobody@127.0.0.1:1/shop"], "is not available"),
    ],
)
def test_unusable_options_are_refused_in_one_sentence(options: list[str], sentence: str) -> None:
    done = subprocess.run(command(*options), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_data_of_an_earlier_demo_is_not_overwritten(demo: Ended) -> None:
    done = run_demo(demo.site.folder, demo.site.postgres_url)
    assert done.code == 2
    assert "earlier demo" in done.errors


@pytest.mark.parametrize(
    ("url", "number", "code"),  # SIGINT: see the terminal's tests
    [
        ("postgres", signal.SIGTERM, 130),
        ("sqlite", signal.SIGKILL, -signal.SIGKILL),
        longer("sqlite", signal.SIGTERM, 130),
        longer("postgres", signal.SIGKILL, -signal.SIGKILL),
    ],
    indirect=["url"],
)
def test_no_worker_outlives_the_demo(
    tmp_path: Path, url: str | None, number: int, code: int
) -> None:
    site = Site(tmp_path / "data", url)
    with subprocess.Popen(
        command("--folder", str(site.folder), *(["--url", url] if url else [])),
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


def test_a_worker_that_ends_by_itself_is_reported(tmp_path: Path) -> None:
    with Crew(Site(tmp_path), "no-such-provider:x") as crew:
        crew.start().process.wait(DEADLINE_SECONDS)
        with pytest.raises(WorkerDied, match=r"worker-1 ended by itself.*no-such-provider"):
            crew.check()


# --- on PostgreSQL: the schema


def change(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())


def has_schema(url: str, name: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT to_regnamespace(%s)", (name,)).fetchone() != (None,)


def test_new_demo_drops_what_an_earlier_one_made(database_url: str) -> None:
    place = PostgresSchema(database_url)
    with place.held():
        place.make_shop()
        change(database_url, "UPDATE durably_demo.products SET price_cents = 1")
    assert set(prices(place).values()) == {1}
    with place.held():
        place.make_shop()
        assert prices(place)["Stoneware mug"] == 1650
    place.remove()
    assert not has_schema(database_url, "durably_demo")


@pytest.mark.parametrize(("query", "schema"), [("", "durably_demo"), ("?schema=mine", "mine")])
def test_schema_that_no_demo_made_is_refused(
    database_url: str, tmp_path: Path, query: str, schema: str
) -> None:
    change(database_url, f"CREATE SCHEMA {schema} CREATE TABLE precious (answer int)")
    done = run_demo(tmp_path, database_url + query)
    assert (done.code, done.output, done.errors.count("\n")) == (2, "", 1)
    assert f"Schema '{schema}'" in done.errors and "is not empty" in done.errors
    change(database_url, f"TABLE {schema}.precious")


def test_ledger_that_is_there_is_not_touched(migrated_url: str, tmp_path: Path) -> None:
    done = run_demo(tmp_path, f"{migrated_url}?schema=public")
    assert (done.code, done.output) == (2, "")
    assert "Schema 'public'" in done.errors
    change(migrated_url, "TABLE durably_runs")


def test_empty_schema_of_the_user_is_used_and_stays(database_url: str) -> None:
    change(database_url, "CREATE SCHEMA mine")
    place = PostgresSchema(f"{database_url}?schema=mine")
    with place.held():
        place.make_shop()
    place.remove()
    assert has_schema(database_url, "mine")


def test_demo_is_alone_in_its_schema(database_url: str, tmp_path: Path) -> None:
    with PostgresSchema(database_url).held():
        done = run_demo(tmp_path, database_url)
    assert (done.code, done.output) == (2, "")
    assert "Another demo is at work" in done.errors


def test_refused_demo_leaves_no_folder(database_url: str, tmp_path: Path) -> None:
    with PostgresSchema(database_url).held():
        subprocess.run(
            command("--url", database_url),
            env={**os.environ, "TMPDIR": str(tmp_path)},
            capture_output=True,
            timeout=120,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ticket", load_tickets(), ids=lambda ticket: ticket.id)
def test_scripted_model_understands_every_ticket(ticket, tmp_path: Path) -> None:
    database = Site(tmp_path).database
    database.make_shop()
    number = order_number(ticket.prompt)
    order = None if number is None else find_order(database, number) or {"error": "none"}
    decision = decide(ticket.prompt, order, prices(database))
    assert (decision.outcome, decision.cents) == (ticket.expects.outcome, ticket.expects.cents)


@pytest.mark.parametrize(
    ("answer", "outcome", "cents", "said"),
    [
        ({"payment_id": "re_1", "cents": 12_900}, "refunded", 12_900, "We refunded $129.00."),
        ({"payment_id": "re_1", "cents": 5000}, "refunded", 5000, "$50.00 of the $129.00"),
        ({"error": "It is too much."}, "answered", 0, "It is too much."),
        ("It is too much.", "answered", 0, "It is too much."),
    ],
)
def test_scripted_model_says_what_was_decided(
    answer: object, outcome: str, cents: int, said: str
) -> None:
    settled = settle(Decision("refunded", "We refunded $129.00.", 12_900), answer)
    assert (settled.outcome, settled.cents) == (outcome, cents)
    assert said in settled.summary


def test_worker_that_sits_in_two_traps_is_killed_for_one(tmp_path: Path) -> None:
    traps = Traps(tmp_path / "traps")
    for name, ticket in ((APPROVED, "T-1"), ("refund", "T-2"), (APPROVED, "T-3")):
        traps.arm(name, ticket)
    for name, ticket, pid in ((APPROVED, "T-1", 7), ("refund", "T-2", 7), (APPROVED, "T-3", 8)):
        step_in(traps, name, ticket, pid)
    assert traps.sat_in(7, BEFORE_PAYING) == Sprung("refund", "T-2", 7)
    assert traps.sat_in(8, BEFORE_PAYING) == Sprung(APPROVED, "T-3", 8)
    assert [path.name for path in tmp_path.glob("traps/*.armed")] == ["approved.T-1.armed"]
    traps.disarm()
    assert [*tmp_path.glob("traps/*.armed")] == []


def step_in(traps: Traps, name: str, ticket: str, pid: int) -> None:
    """What a worker does that sits in a trap until it is killed."""
    place = traps.folder
    (place / f"{name}.{ticket}.armed").rename(place / f"{name}.{ticket}.{pid}.sprung")


def test_mail_server_sends_nothing_twice(tmp_path: Path) -> None:
    server = MailServer(tmp_path / "outbox.jsonl")
    mail = {"message_id": "<1@x>", "to": "a@b", "subject": "s", "body": "b", "ticket": "T-1"}
    assert [server.send(**mail), server.send(**mail)] == [True, False]
    assert [json.loads(line)["to"] for line in server_lines(tmp_path)] == ["a@b"]


def server_lines(folder: Path) -> list[str]:
    return (folder / "outbox.jsonl").read_text().splitlines()
