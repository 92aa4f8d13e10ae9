"""A soak finds what is broken: workers with a flaw are soaked for a moment, and it shows.

`make soak` is the soak itself; that it finds nothing in durably as it is, says only that.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.children import Strike
from soak import chaos
from soak.main import Soak, soak

pytestmark = pytest.mark.timeout(1800)

SECONDS = 6.0
ROUNDS = 10
"""Chaos may miss: a flaw shows when a process ends at the right moment."""


@pytest.mark.parametrize(
    ("flaw", "strike", "promise"),
    [("intent", Strike("effect:after", 5), "No silent repeat"), ("fence", None, "One writer")],
    ids=["intent", "fence"],
)
def test_soak_finds_what_is_left_out(
    flaw: str, strike: Strike | None, promise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are hit where the flaw shows, since a short soak seldom draws just that."""
    monkeypatch.setattr(chaos, "strike_of", lambda *_: (strike, False))
    found: dict[str, list[str]] = {}
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = _soaked(folder, flaw).failures
        if found[promise]:
            return
    pytest.fail(f"nothing shows that the {flaw} is left out: {found}")


def _soaked(folder: Path, flaw: str) -> Soak:
    options = {"seed": 7, "seconds": SECONDS, "flaw": flaw}
    soaked = soak(folder, ["sqlite"], customers=8, workers=2, **options)["sqlite"]
    if soaked.error is not None:
        raise soaked.error  # The soak itself broke, and found neither.
    return soaked
