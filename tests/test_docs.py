"""What the documentation says is true: every code block runs, every link leads somewhere.

Blocks of one page run in order, in a folder of their own:

- ``python``: shares a namespace with the page's other blocks, may use ``await``. With a first line
  such as ``# support.py`` it is also written to that file. Lines ``#> …`` are what it prints.
- ``console``: ``$ …`` lines run, and print what is shown below them (``...`` stands for anything).
  They succeed, unless ``$ echo $?`` comes next. ``&`` at the end leaves a command running.
- ``sql``: finds or changes something in the ledger that the page's blocks made: in the PostgreSQL
  database that the page has named last, or else in its SQLite file.
- ``elixir``: the insert that Elixir's Oban would make is made, in that database.
- ``toml``: is what it says in its first line, ``# durably.toml``, and is written there.
- ``text``: the only one that is not run.

``postgresql://localhost/NAME`` is a database of the page's own, empty at first. ``make`` and
``pip`` are not run: what they are told to make or to install has to be there.
"""

import ast
import asyncio
import doctest
import inspect
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic_ai import models

from durably import Durably
from durably.config import Settings
from durably.lifecycle import TRANSITIONS, RunState
from support import elixir
from support.postgres_run import Postgres
from support.quick_shell import QuickShell

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OTHER_PAGES = [ROOT / "CHANGELOG.md"]

FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
ROLE = re.compile(r"\bTO (\w+);")
DATABASE = re.compile(r"postgresql(\+psycopg)?://localhost/(\w+)")
SECONDS = 300


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    text: str
    page: Path
    line: int

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that the first line names."""
        match = re.match(r"# ([\w./-]+\.(?:py|toml))\n", self.text)
        return match[1] if match else None


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(match[1], match[2], page, text[: match.start()].count("\n") + 1)
        for match in FENCE.finditer(text)
    ]


def check_output(block: Block, command: str, wanted: str, got: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    example = doctest.Example(command, wanted)
    if not doctest.OutputChecker().check_output(example.want, got, flags):
        checker = doctest.OutputChecker()
        pytest.fail(f"{block}: {command}\n{checker.output_difference(example, got, flags)}")


@dataclass
class Reader:
    """Somebody who types in a page, block for block."""

    folder: Path
    env: dict[str, str]
    shell: QuickShell
    module: types.ModuleType
    runner: asyncio.Runner
    new_database: Callable[[], str]
    databases: dict[str, str] = field(default_factory=dict)
    database: str | None = None
    roles: set[str] = field(default_factory=set)
    jobs: list[subprocess.Popen[bytes]] = field(default_factory=list)
    status: int = 0

    def follow(self, block: Block) -> None:
        block = replace(block, text=DATABASE.sub(self._database, block.text))
        if block.file is not None:
            (self.folder / block.file).write_text(block.text, "utf-8")
        match block.language:
            case "python":
                self._python(block)
            case "console":
                self._console(block)
            case "sql":
                self._sql(block)
            case "elixir":
                self._elixir(block)
            case "toml":
                self._toml(block)
            case "text":
                pass
            case other:
                pytest.fail(f"{block}: a block of {other or 'no language'} is run by nobody")

    def close(self) -> None:
        for job in self.jobs:
            job.kill()
            job.wait()
        for value in vars(self.module).values():
            if isinstance(value, Durably):
                self.runner.run(value.close())
        self.runner.close()

    def _database(self, found: re.Match[str]) -> str:
        driver, name = found.groups("")
        if name not in self.databases:
            self.databases[name] = self.new_database()
        self.database = self.databases[name]
        return self.database.replace("://", f"{driver}://")

    def _python(self, block: Block) -> None:
        # Moved down, so that a traceback names the line of the page.
        code = compile(
            "\n" * block.line + block.text,
            str(block.page),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        printed = StringIO()

        async def execute() -> None:
            result = eval(code, vars(self.module))
            if inspect.iscoroutine(result):
                await result

        with redirect_stdout(printed):
            self.runner.run(execute())
        wanted = [line[3:] for line in block.text.splitlines() if line.startswith("#> ")]
        check_output(block, "print", "\n".join(wanted), printed.getvalue())

    def _console(self, block: Block) -> None:
        first, *commands = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
        assert first == "", f"{block}: begins with a command"
        for number, command in enumerate(commands):
            line, _, wanted = command.partition("\n")
            got = self._run(block, line)
            check_output(block, line, wanted, got) if wanted.strip() else None
            following = commands[number + 1] if number + 1 < len(commands) else ""
            if not following.startswith("echo $?"):
                assert self.status == 0, f"{block}: {line}: exit code {self.status}\n{got}"

    def _run(self, block: Block, line: str) -> str:
        words = shlex.split(line, comments=True)
        if line == "echo $?":
            status, self.status = self.status, 0
            return f"{status}\n"
        if words[0] == "pip":
            return self._pip(block, words)
        if words[0] == "make":
            # Said, not done; and a target of ours, not a folder of that name.
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text("utf-8"), f"{block}: {line}"
            words = ["make", "-n", "-C", str(ROOT), *words[1:]]
        elif words[0] == "python":
            words[0] = sys.executable
        elif words[0] == "kill":
            return self._kill(words[-1])
        elif words[0] == "durably" and words[-1] != "&":
            output = self.folder / ".output"
            self.status = self.shell.run(words[1:], self.folder, output)
            return output.read_text("utf-8")
        else:
            assert words[0] == "durably", f"{block}: nobody knows how to run {line!r}"
        if words[-1] == "&":
            return self._leave_running(words[:-1])
        ran = subprocess.run(
            words,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        self.status = ran.returncode
        return ran.stdout if words[0] != "make" else ""

    def _pip(self, block: Block, words: list[str]) -> str:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        extras = project["optional-dependencies"]
        possible = [["pip", "install", f"{project['name']}[{extra}]"] for extra in extras]
        assert words in possible, f"{block}: {words}"
        return ""

    def _leave_running(self, words: list[str]) -> str:
        log = self.folder / f".log-{len(self.jobs)}"
        with log.open("wb") as output:
            job = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.jobs.append(job)
        deadline = time.monotonic() + SECONDS
        while "serves" not in log.read_text():
            assert job.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        return ""

    def _kill(self, which: str) -> str:
        job = self.jobs[int(which.removeprefix("%")) - 1]
        job.send_signal(signal.SIGTERM)
        self.status = job.wait(SECONDS)
        return ""

    def _sql(self, block: Block) -> None:
        if self.database is not None:
            self._postgres_sql(block, self.database)
            return
        (path,) = self.folder.glob("*.db")
        with closing(sqlite3.connect(path)) as connection:
            for statement in block.text.split(";"):
                if statement.strip():
                    assert connection.execute(statement).fetchall(), f"{block}: finds nothing"

    def _postgres_sql(self, block: Block, url: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for role in set(ROLE.findall(block.text)) - self.roles:
                connection.execute(f"CREATE ROLE {role}".encode())
                self.roles.add(role)
            cursor = connection.execute(block.text.encode())
            more: bool | None = True
            while more:
                assert cursor.rowcount != 0, f"{block}: {cursor.statusmessage} finds nothing"
                more = cursor.nextset()

    def _elixir(self, block: Block) -> None:
        assert self.database is not None, f"{block}: the page has named no database"
        for args, options in elixir.jobs_of(block.text):
            elixir.insert(self.database, args, **options)

    def _toml(self, block: Block) -> None:
        assert block.file is not None, f"{block}: names its file in the first line"
        table: Any = tomllib.loads(block.text)
        if block.file == "pyproject.toml":
            table = table["tool"]["durably"]
        assert set(table) <= set(Settings.__slots__), f"{block}: unknown settings"
        Settings.load(folder=self.folder, environ={})


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    """What a reader's terminal has: no key, no colours, no settings of ours."""
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    slow = ("schemathesis", "hypothesispytest", "playwright", "base_url", "xdist", "timeout")
    kept["PYTEST_ADDOPTS"] = " ".join(f"-pno:{plugin}" for plugin in slow)  # a reader has none
    return kept | {"COLUMNS": "120", "NO_COLOR": "1", "PYTHONUTF8": "1"}


@pytest.fixture(scope="module")
def shell(env: dict[str, str]) -> Iterator[QuickShell]:
    shell = QuickShell(env)
    yield shell
    shell.close()


@pytest.fixture
def reader(
    tmp_path: Path,
    env: dict[str, str],
    shell: QuickShell,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Reader]:
    for name in [name for name in os.environ if name.startswith("DURABLY_") or name == "MODEL"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", False)
    # A module: annotations, pydantic and dataclasses look names up in the one that they are from.
    module = types.ModuleType("durably_docs")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with ExitStack() as databases:

        def new_database() -> str:
            postgres: Postgres = request.getfixturevalue("postgres")
            if not reader.databases:
                databases.callback(drop, postgres.url, reader.roles)  # after the databases
            return databases.enter_context(postgres.database())

        reader = Reader(tmp_path, env, shell, module, asyncio.Runner(), new_database)
        yield reader
        reader.close()


def drop(url: str, roles: set[str]) -> None:
    """Drop the roles that a page's blocks were told of."""
    with psycopg.connect(url, autocommit=True) as connection:
        for role in roles:
            connection.execute(f"DROP ROLE {role}".encode())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_runs(page: Path, reader: Reader) -> None:
    for block in blocks_of(page):
        reader.follow(block)


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=name_of)
def test_every_fence_is_a_block(page: Path) -> None:
    """An indented or unclosed fence would be shown, and not run."""
    fences = [line for line in page.read_text("utf-8").splitlines() if "```" in line]
    assert len(fences) == 2 * len(blocks_of(page))


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"https://", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            assert anchor in anchors_of(found), f"{name_of(page)} links to {target}"


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_on_the_map() -> None:
    text = (ROOT / "docs" / "index.md").read_text("utf-8")
    linked = {(ROOT / "docs" / target).resolve() for target in LINK.findall(text)}
    assert [name_of(page) for page in PAGES[1:] if page not in linked] == [
        name_of(ROOT / "docs" / "index.md")
    ]


def test_the_lifecycle_page_is_the_state_machine() -> None:
    text = (ROOT / "docs" / "concepts.md").read_text("utf-8")
    section = text.split("\n## Lifecycle\n")[1].split("\n## ")[0]
    found = {}
    for row in re.findall(r"^\| `(\w+)` \|(.*)\|(.*)\|.*\|$", section, re.MULTILINE):
        found[row[0]] = tuple({s for s in RunState if f"`{s}`" in cell} for cell in row[1:])
    assert found == {t.name: (t.sources, t.targets) for t in TRANSITIONS.values()}
