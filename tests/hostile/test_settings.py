"""Whatever stands in durably.toml, pyproject.toml or the environment: settings, or a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably.config import KNOWN, Settings
from durably.errors import ConfigError

TEXT = st.text(st.characters(codec=None), max_size=30)
NAMES = st.sampled_from([*KNOWN, "tool", "durably"]) | TEXT
LITERALS = TEXT | st.sampled_from(
    [
        '"x"',
        "'''a\nb'''",
        "1",
        "-1",
        "1e999",
        "nan",
        "inf",
        "true",
        "[]",
        "{}",
        "[[]]",
        "1979-05-27",
    ]
)
ODD = ("-1", "nan", "inf", "1e999", "9" * 400, "٣", "30 s", "0x10", "", " 5 ", "\0", "\ud800")
VALUES = TEXT | st.sampled_from(ODD)
TABLES = st.sampled_from(["", "[tool.durably]\n", "[tool]\ndurably = 5\n", "tool = []\n", "[["])

SENT = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def load(folder: Path, environ: dict[str, str]) -> Settings | None:
    """The settings, or None if they were refused in one sentence."""
    try:
        return Settings.load(folder=folder, environ=environ)
    except ConfigError as error:
        assert str(error).strip()
        return None


@pytest.mark.parametrize("name", ["durably.toml", "pyproject.toml"])
def test_any_file_is_settings_or_refused(name: str, tmp_path: Path) -> None:
    @SENT
    @given(
        st.one_of(
            st.binary(max_size=60),
            st.tuples(TABLES, st.lists(st.tuples(NAMES, LITERALS), max_size=4)).map(
                lambda made: (
                    made[0] + "".join(f"{key} = {value}\n" for key, value in made[1])
                ).encode("utf-8", "surrogatepass")
            ),
        )
    )
    def write(content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        check(load(tmp_path, {}))

    write()


def test_any_environment_is_settings_or_refused(tmp_path: Path) -> None:
    @SENT
    @given(st.dictionaries(st.sampled_from([f"DURABLY_{n.upper()}" for n in KNOWN]), VALUES))
    def set_all(environ: dict[str, str]) -> None:
        check(load(tmp_path, environ))

    set_all()


def check(found: Settings | None) -> None:
    """Of the right kinds: whoever uses them need not ask again."""
    if found is None:
        return
    assert isinstance(found.url, str) and isinstance(found.app, str | None)
    for seconds in (found.lease, found.grace):
        assert seconds is None or 0 <= seconds < float("inf")
