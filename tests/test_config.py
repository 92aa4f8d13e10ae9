"""Settings: what wins over what, and files and values that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably import ConfigError, Durably
from durably.config import DEFAULT_URL, Settings


def write(folder: Path, *, durably: str = "", pyproject: str = "") -> None:
    if durably:
        (folder / "durably.toml").write_text(durably)
    if pyproject:
        (folder / "pyproject.toml").write_text(pyproject)


def load(folder: Path, environ: dict[str, str] | None = None, **arguments: str) -> Settings:
    return Settings.load(environ=environ or {}, folder=folder, **arguments)


def test_without_any_settings_the_ledger_is_a_file_here(tmp_path: Path) -> None:
    assert load(tmp_path) == Settings(DEFAULT_URL, None, None, None)


def test_arguments_win_over_environment_over_durably_toml_over_pyproject(tmp_path: Path) -> None:
    write(tmp_path, pyproject='[tool.durably]\nurl = "1"\napp = "1"\nlease = 1\ngrace = 1\n')
    assert load(tmp_path) == Settings("1", "1", 1.0, 1.0)
    write(tmp_path, durably='url = "2"\napp = "2"\nlease = 2.5\n')
    assert load(tmp_path) == Settings("2", "2", 2.5, 1.0)
    environ = {"DURABLY_URL": "3", "DURABLY_APP": "3", "DURABLY_LEASE": "", "OTHER": "x"}
    assert load(tmp_path, environ) == Settings("3", "3", 2.5, 1.0)
    assert load(tmp_path, environ, url="4", app="4") == Settings("4", "4", 2.5, 1.0)


def test_pyproject_of_somebody_else_sets_nothing(tmp_path: Path) -> None:
    write(tmp_path, pyproject='[project]\nname = "x"\n[tool.ruff]\nline-length = 9\n')
    assert load(tmp_path) == Settings()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("durably.toml", b"url = "),
        ("durably.toml", b"\xff\xfe"),
        ("durably.toml", b"url = 1\nurl = 2\n"),
        ("durably.toml", b"lesae = 3\n"),
        ("durably.toml", b"url = 3\n"),
        ("pyproject.toml", b"tool = 3\n"),
        ("pyproject.toml", b"[tool]\ndurably = 'x'\n"),
        ("pyproject.toml", b"[[tool.durably]]\nurl = 'x'\n"),
    ],
)
def test_file_that_cannot_be_understood_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load(tmp_path)
    assert str(tmp_path / name) in str(refused.value)


@pytest.mark.parametrize("value", ["soon", "", "30s", "nan", "inf", "-1", "-0.5", "1e400"])
def test_number_of_seconds_that_is_none_is_refused(tmp_path: Path, value: str) -> None:
    write(tmp_path, durably=f'lease = "{value}"\n')
    with pytest.raises(ConfigError, match=r"lease = .*: a number of seconds, such as 30"):
        load(tmp_path)


def test_number_of_seconds_may_come_from_the_environment(tmp_path: Path) -> None:
    assert load(tmp_path, {"DURABLY_LEASE": "2", "DURABLY_GRACE": "0"}) == Settings(
        lease=2.0, grace=0.0
    )
    with pytest.raises(ConfigError, match="grace = 'x'"):
        load(tmp_path, {"DURABLY_GRACE": "x"})


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://host/db", "mysql:// is no database that this version knows"),
        ("sqlite://", "A ledger in memory would not survive"),
        ("sqlite:///:memory:", "A ledger in memory would not survive"),
        (":memory:", "A ledger in memory would not survive"),
    ],
)
def test_url_that_names_no_ledger_is_refused(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Durably(url)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///a.db", "a.db"),
        ("sqlite:////var/lib/a.db", "/var/lib/a.db"),
        ("a.db", "a.db"),
        ("/var/lib/a.db", "/var/lib/a.db"),
        ("sqlite:///with%20space.db", "with space.db"),
        ("100%25.db", "100%25.db"),
        ("what?.db", "what?.db"),
    ],
)
def test_url_names_its_file(url: str, path: str) -> None:
    assert Durably(url).ledger.path == Path(path)  # type: ignore[attr-defined]
