"""The examples run as they are, without a key or a network, and once more where they were."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        cwd=folder,
        env={"PATH": "", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_first_agent_answers_and_goes_on_where_it_was(tmp_path: Path) -> None:
    first = run("first_agent.py", tmp_path)
    assert "was shipped" in first[-1]
    assert run("first_agent.py", tmp_path) == first


def test_recipe_ends_with_the_round_trip_of_two_messages(tmp_path: Path) -> None:
    first = run("recipe.py", tmp_path)
    assert first[0] == "It is on its way."
    assert '"part_kind":"user-prompt"' in first[-2]
    assert first[-1] == "round trip: True"
    # The same history, byte for byte: the second run did not run the agent again.
    assert run("recipe.py", tmp_path) == first


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {"first_agent.py", "recipe.py"}
