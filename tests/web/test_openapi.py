"""Everything that the description of the API allows is asked of a live server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.web import OPERATOR, Shop

COMMAND = Path(sys.executable).with_name("schemathesis")


def ask_everything(shop: Shop, *options: str) -> None:
    """Ask what schemathesis makes of the description, and have it check every answer."""
    ran = subprocess.run(
        [
            str(COMMAND),
            *("run", f"{shop.url}/api/openapi.json"),
            *("--header", f"Authorization: Bearer {OPERATOR}"),
            *("--exclude-operation-id", "watchRun"),  # It does not end; see test_watch.
            *("--generation-database", "none", "--no-color"),
            *options,
        ],
        cwd=shop.folder,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-20_000:]


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_the_api_does_what_its_description_says(shop: Shop) -> None:
    ask_everything(shop, "--max-examples", "10", "--seed", "1")


@pytest.mark.parametrize("ledger_url", ["postgres"], indirect=True)
def test_it_does_so_on_postgresql(shop: Shop) -> None:
    ask_everything(shop, "--max-examples", "8", "--seed", "2", "--phases", "fuzzing")
