"""What the tests of `durably crashtest` share: an application in a folder, and the command."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from durably.cli.main import run

APPS = Path(__file__).parents[1] / "apps"


@dataclass
class Tested:
    """What the command left."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.out)

    def tool(self, name: str) -> dict[str, Any]:
        (found,) = [tool for tool in self.report["tools"] if tool["tool"] == name]
        return found


@dataclass
class Bench:
    """Where crash tests are made, and what they leave outside."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    database: str | None = None

    def crashtest(self, agent: str, *options: str, app: str = "counter:make") -> Tested:
        """Test an agent of an application; the report is JSON."""
        command = ["crashtest", app, "--agent", agent, "--prompt", "Look after it.", *options]
        if self.database is not None:
            command += ["--database", self.database]
        self.capsys.readouterr()
        code = run([*command, "--json"])
        return Tested(code, *self.capsys.readouterr())

    def outside(self, tool: str) -> int:
        """How often something happened outside, in all runs."""
        file = self.folder / "outside.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return sum(json.loads(line)["tool"] == tool for line in lines)

    def check_clean(self) -> None:
        """Nothing is left, and the application's own ledger was never made."""
        assert not (self.folder / "own.db").exists()
        assert list((self.folder / "tmp").iterdir()) == []


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Bench]:
    for name in [name for name in os.environ if name.startswith("DURABLY_")]:
        monkeypatch.delenv(name)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("COUNTER", str(tmp_path))
    monkeypatch.setenv("DURABLY_URL", f"sqlite:///{tmp_path}/own.db")
    monkeypatch.chdir(APPS)
    monkeypatch.syspath_prepend(str(APPS))
    bench = Bench(tmp_path, capsys)
    yield bench
    bench.check_clean()


@pytest.fixture(params=["sqlite", "postgres"])
def either_bench(request: pytest.FixtureRequest, bench: Bench) -> Bench:
    """The same, on each database."""
    if request.param == "postgres":
        bench.database = request.getfixturevalue("database_url")
    return bench
