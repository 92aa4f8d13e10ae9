"""Any words on the command line: a sentence and an exit code that is documented, no traceback."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably import Durably
from durably.cli.main import run as command
from support.sample import examples

CODES = {0, 1, 2}
WORDS = st.one_of(
    st.text(st.characters(codec=None, exclude_characters="\0"), max_size=12),
    st.sampled_from(["{", "[]", "null", '{"a":1e999}', "NaN", "-1", "9" * 40, "1e999", "k", "1.0"]),
    st.sampled_from(["--json", "--limit", "--key", "--args", "--meta", "--tag", "--delay", "--by"]),
)
NAMES = "enqueue runs show inbox approve deny answer resolve signal cancel retry queues budgets"
COMMANDS = st.sampled_from([*NAMES.split(), "prune", "audit", "doctor", "migrate"])


@pytest.fixture
def ledger(app_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = app_url

    async def make() -> None:
        async with Durably(url) as app:
            await app.enqueue("nobody", "x", key="k")

    asyncio.run(make())
    for name in [n for n in os.environ if n.startswith("DURABLY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DURABLY_URL", url)
    monkeypatch.chdir(tmp_path)
    return url


def test_any_words_end_in_a_documented_way(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    # Each is a new connection on PostgreSQL, which take their time.
    few = examples(100 if ledger.startswith("sqlite") else 40)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=few)
    @given(COMMANDS, st.lists(WORDS, max_size=5))
    def say(name: str, words: list[str]) -> None:
        code = command([name, *words])
        said = capsys.readouterr()
        assert code in CODES, (code, name, words, said.err[-2000:])
        assert "Traceback" not in said.err, (name, words)

    say()


@pytest.mark.parametrize("word", [b"\xff\xfe", b"\xed\xa0\x80", "\u202e".encode()])
def test_bytes_that_are_no_text_end_in_a_sentence(ledger: str, word: bytes) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "durably", "show", word],
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 2, ran.stderr
    assert b"Traceback" not in ran.stderr and ran.stderr.startswith(b"Error: ")
