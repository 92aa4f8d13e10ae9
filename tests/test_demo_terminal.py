"""In a terminal the demo asks about refunds above the limit, and does what the person says."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from durably.demo.keyboard import CHOICES, amount
from durably.demo.outside import Book, Entry
from durably.demo.site import Site
from support.demo import DEADLINE_SECONDS, no_worker_is_alive
from support.terminal import Terminal

pytestmark = pytest.mark.timeout(400)

QUESTION = r"(T-\d+) waits for you"
PROMPT = r"\[e\]dit amount: "

type Decide = Callable[[Terminal, Site], None]


def demo(site: Site) -> Terminal:
    where = ["--url", site.postgres_url] if site.postgres_url else []
    command = [sys.executable, "-m", "durably", "demo", "--folder", str(site.folder), *where]
    env = {k: v for k, v in os.environ.items() if not k.startswith("DURABLY_")}
    return Terminal(command, env, DEADLINE_SECONDS)


def durably(site: Site, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "durably", *words, "--url", site.database.url],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def asked(terminal: Terminal) -> str:
    """The ticket that the person is asked about."""
    ticket = terminal.wait_for(QUESTION).group(1).decode()
    terminal.wait_for(PROMPT)
    return ticket


def approve(terminal: Terminal, site: Site) -> None:
    terminal.type("what?\n")
    terminal.wait_for(r"Type a, d or e")
    terminal.wait_for(PROMPT)
    terminal.type("a\n")


def deny(terminal: Terminal, site: Site) -> None:
    terminal.type("d\n")


def edit(terminal: Terminal, site: Site) -> None:
    for wrong in ("500", "nothing"):
        terminal.type("e\n" if wrong == "500" else "")
        terminal.wait_for(r"go back\): ")
        terminal.type(f"{wrong}\n")
        terminal.wait_for(r"no such amount")
    terminal.type("$ 49.90\n")


def approve_elsewhere(terminal: Terminal, site: Site) -> None:
    durably(site, "approve", "T-1010", "3.0", "--by", "ana")


def play(site: Site, decide: dict[str, Decide]) -> Terminal:
    """The whole demo; each question is answered as ``decide`` says."""
    with demo(site) as terminal:
        for _ in decide:
            decide[asked(terminal)](terminal, site)
        assert terminal.ended() == 0, terminal.shown
    return terminal


def shows(terminal: Terminal, *rows: str) -> bool:
    """True if the final table has these rows, and says that they are right."""
    table = terminal.shown.partition("Read back from the data")[2].splitlines()
    right = [line for line in (" ".join(line.split()) for line in table) if line.endswith(" ok")]
    return all(any(line.startswith(f"{row} ") for line in right) for row in rows)


def refunds(site: Site) -> dict[str, list[int]]:
    made = dict[str, list[int]]()
    for entry in Book(site.payments).entries():
        if entry["kind"] == "refund":
            made.setdefault(entry["ticket"], []).append(entry["cents"])
    return made


def rulings(site: Site) -> dict[str, Entry]:
    return {entry["ticket"]: entry for entry in Book(site.approvals).entries()}


def mail(site: Site, ticket: str) -> str:
    (body,) = [e["body"] for e in Book(site.outbox).entries() if e["ticket"] == ticket]
    return body


@pytest.mark.longer
def test_what_the_person_approves_is_paid_and_what_they_deny_is_not(tmp_path: Path) -> None:
    site = Site(tmp_path / "data")
    terminal = play(site, {"T-1007": approve, "T-1010": deny})
    assert refunds(site) == {"T-1003": [1650], "T-1007": [12900], "T-1012": [3900]}
    assert "We did not pay this back. The shop decided against it." in mail(site, "T-1010")
    assert {t: (r["decision"], r["by"]) for t, r in rulings(site).items()} == {
        "T-1007": ("approved", "keyboard"),
        "T-1010": ("denied", "keyboard"),
    }
    assert shows(
        terminal,
        "workers killed (SIGKILL) 4 4",
        "answered as called for 16 16",
        "refunds made 3, $184.50 3, $184.50",
        "approvals asked 2 2",
        "decided by keyboard 2 2",
        "paid once, when approved 1, $129.00 1, $129.00",
        "paid without approval 0 0",
        "payments in shop's books 8 8",
    ), terminal.shown
    assert "killed with SIGKILL between the approval of a refund for T-1007" in terminal.shown
    assert "1 approved, 1 denied" in terminal.shown


def test_edited_amount_is_paid_and_other_terminals_may_decide(
    tmp_path: Path, database_url: str
) -> None:
    site = Site(tmp_path / "data", database_url)
    terminal = play(site, {"T-1007": edit, "T-1010": approve_elsewhere})
    assert refunds(site) == {
        "T-1003": [1650],
        "T-1007": [4990],
        "T-1010": [12600],
        "T-1012": [3900],
    }
    assert "We refunded $49.90 of the $129.00 for this." in mail(site, "T-1007")
    assert {ticket: ruling["by"] for ticket, ruling in rulings(site).items()} == {
        "T-1007": "keyboard",
        "T-1010": "ana",
    }
    assert "T-1010 refund approved by ana" in terminal.shown
    assert shows(
        terminal,
        "refunds made 4, $231.40 4, $231.40",
        "approvals asked 2 2",
        "paid once, when approved 2, $175.90 2, $175.90",
    ), terminal.shown


@pytest.mark.parametrize(
    ("first", "leave", "database"),
    [(None, "\x03", "sqlite"), (deny, "\x04", "postgres")],
    ids=["ctrl-c-sqlite", "ctrl-d-postgres"],
)
def test_what_waits_goes_on_waiting_when_the_person_leaves(
    request: pytest.FixtureRequest, tmp_path: Path, first: Decide | None, leave: str, database: str
) -> None:
    """What they decided first is decided all the same."""
    url = request.getfixturevalue("database_url") if database == "postgres" else None
    site = Site(tmp_path / "data", url)
    with demo(site) as terminal:
        ticket = asked(terminal)
        if first is not None:
            first(terminal, site)
            ticket = asked(terminal)
        terminal.type(leave)
        assert terminal.ended() == 130
    said = {ticket: (r["decision"], r["by"]) for ticket, r in rulings(site).items()}
    assert said == ({} if first is None else {"T-1007": ("denied", "keyboard")})
    assert "Interrupted; the workers are stopped." in terminal.shown
    assert "Traceback" not in terminal.shown
    command = f"approve {ticket} 3.0"
    assert f"{site.command(command)}\n" in terminal.shown.rpartition("Still waiting")[2]
    said = f"Call 3.0 of run '{ticket}' is approved; it is available now.\n"
    assert durably(site, *command.split(), "--by", "ana") == said
    assert [*site.traps.glob("*.armed")] == [], "a worker that is started now would be trapped"
    asyncio.run(no_worker_is_alive(site))


@pytest.mark.parametrize(
    ("text", "cents"),
    [
        ("25", 2500),
        ("$25", 2500),
        ("$ 49.90", 4990),
        ("49.9", 4990),
        ("100", 10_000),
        ("0.01", 1),
        ("0", None),
        ("100.01", None),
        ("-5", None),
        ("1e1", None),
        ("49,90", None),
        ("49.999", None),
        ("٤٩", None),
        ("all", None),
        ("", None),
    ],
)
def test_amounts_are_understood_or_refused(text: str, cents: int | None) -> None:
    assert amount(text, 10_000) == cents


def test_prompt_says_what_may_be_typed() -> None:
    assert CHOICES == "[a]pprove / [d]eny / [e]dit amount: "
