"""The set-up's promises: which Python it takes, and what the locks hold."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = [
    *("requirements.lock", "requirements-oldest.lock", "requirements-postgres.lock"),
    "requirements-bench.lock",
]


def find_python(path: Path, home: Path) -> subprocess.CompletedProcess[str]:
    for tool in ("ls", "grep", "sort"):
        (path / tool).symlink_to(shutil.which(tool) or tool)
    return subprocess.run(
        [ROOT / "scripts/find_python.sh"],
        env={"PATH": str(path), "HOME": str(home)},
        capture_output=True,
        text=True,
    )


def find_compiler(path: Path, python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/find_compiler.sh", python],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
    )


def command(file: Path, line: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)


def this_python() -> str:
    return f'exec "{sys._base_executable}" "$@"'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def test_a_python_that_is_there_but_fails_is_passed_over(path: Path, tmp_path: Path) -> None:
    command(path / "python3.14", "echo 'pyenv: python3.14: command not found' >&2; exit 127")
    command(path / "python3.12", this_python())
    found = find_python(path, tmp_path)
    assert found.returncode == 0
    version = subprocess.check_output([found.stdout.strip(), "-V"], text=True)
    assert version == f"Python {sys.version.split()[0]}\n"


def test_a_pyenv_installation_is_found_when_path_has_none(path: Path, tmp_path: Path) -> None:
    command(tmp_path / ".pyenv/versions/3.9.1/bin/python3", "exit 1")
    command(tmp_path / ".pyenv/versions/3.12.10/bin/python3", this_python())
    assert find_python(path, tmp_path).returncode == 0


def test_uv_is_asked_last(path: Path, tmp_path: Path) -> None:
    command(tmp_path / "elsewhere/python3", this_python())
    command(path / "uv", f"echo '{tmp_path}/elsewhere/python3'")
    assert find_python(path, tmp_path).returncode == 0


def test_no_python_found_says_in_one_sentence_what_to_install(path: Path, tmp_path: Path) -> None:
    command(path / "python3", "exit 1")
    found = find_python(path, tmp_path)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.count("\n") == 1
    assert "Python 3.12 or newer" in found.stderr


def test_a_compiler_is_found_under_any_of_its_names(path: Path) -> None:
    command(path / "c++", "exit 1")
    (path / "clang++").symlink_to(shutil.which("c++") or "")
    found = find_compiler(path, sys.executable)
    assert (found.returncode, found.stderr) == (0, "")


def test_no_compiler_found_says_in_one_sentence_what_to_install(path: Path) -> None:
    command(path / "c++", "echo 'xcode-select: note: no developer tools were found' >&2; exit 1")
    found = find_compiler(path, sys.executable)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.count("\n") == 1
    assert "needs a C++ compiler" in found.stderr and "package g++" in found.stderr


def test_a_python_without_headers_is_told_apart_from_a_missing_compiler(
    path: Path, tmp_path: Path
) -> None:
    (path / "c++").symlink_to(shutil.which("c++") or "")
    command(tmp_path / "python", f'[ "$1" = -V ] && echo Python 3.13 || echo "{tmp_path}"')
    found = find_compiler(path, str(tmp_path / "python"))
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.count("\n") == 1
    assert "headers of Python 3.13" in found.stderr and "package python3-dev" in found.stderr


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^ ;]+)", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize("base", ["requirements.lock", "requirements-oldest.lock"])
def test_postgres_lock_agrees_with_the_lock_that_it_comes_on_top_of(base: str) -> None:
    base_pins, postgres_pins = pins(base), pins("requirements-postgres.lock")
    shared = base_pins.keys() & postgres_pins.keys()
    assert shared
    assert {name: base_pins[name] for name in shared} == {
        name: postgres_pins[name] for name in shared
    }
    # oban's erlpack is built without a build environment of its own.
    assert "setuptools" in base_pins


def test_only_the_postgres_lock_needs_a_compiler() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = {
        re.split(r"[\[>=]", requirement)[0]
        for requirement in project["optional-dependencies"]["postgres"]
    }
    assert extra | {"erlpack"} <= pins("requirements-postgres.lock").keys()
    for lock in ("requirements.lock", "requirements-oldest.lock"):
        assert not (extra | {"erlpack"}) & pins(lock).keys()


def test_oldest_lock_pins_the_lower_bound_of_pydantic_ai() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (bound,) = re.findall(r"pydantic-ai-slim>=([\d.]+)", " ".join(project["dependencies"]))
    lock = (ROOT / "requirements-oldest.lock").read_text()
    assert f"\npydantic-ai-slim=={bound} \\\n" in lock


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_versions_and_hashes_but_no_addresses(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=sha256:)", text, re.MULTILINE)


def test_package_says_that_it_is_typed() -> None:
    assert files("durably").joinpath("py.typed").is_file()
