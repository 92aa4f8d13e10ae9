"""A soak finds what is broken: workers with a flaw are soaked for a moment, and it shows.

`make soak` is the soak itself; that it finds nothing in durably as it is, says only that.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.children import Strike
from soak import arena, chaos
from soak.main import Soak, soak

pytestmark = pytest.mark.timeout(1800)

SECONDS = 6.0
LEASE_SECONDS = 1.5
ROUNDS = 10
"""Chaos may miss: a flaw shows when a process ends, or comes back, at the right moment."""


@pytest.mark.parametrize(
    ("flaw", "strike", "freezes", "promise"),
    [
        pytest.param("intent", Strike("effect:after", 5), False, "No silent repeat", id="intent"),
        pytest.param("fence", Strike("checkpoint:before", 4), True, "One writer", id="fence"),
    ],
)
def test_soak_finds_what_is_left_out(
    flaw: str,
    strike: Strike,
    freezes: bool,
    promise: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Workers are hit where the flaw shows, since a short soak seldom draws just that."""
    monkeypatch.setattr(chaos, "LEASE_SECONDS", LEASE_SECONDS)
    monkeypatch.setattr(arena, "STOPPED_LEASES", 2.5)
    monkeypatch.setattr(
        chaos,
        "strike_of",
        lambda seed, dialect, worker, start: (strike if worker else None, freezes),
    )
    found: dict[str, list[str]] = {}
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = _soaked(folder, flaw).failures
        if found[promise]:
            return
    pytest.fail(f"nothing shows that the {flaw} is left out: {found}")


def _soaked(folder: Path, flaw: str) -> Soak:
    pace = chaos.pace_of_this_machine()
    options = {"seed": 7, "seconds": SECONDS * pace, "pace": pace, "flaw": flaw}
    return soak(folder, ["sqlite"], customers=8, workers=2, **options)["sqlite"]
