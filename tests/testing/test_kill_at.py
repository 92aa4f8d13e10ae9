"""A crash by SIGKILL in a real process, on the ledger and at the time of a test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from durably import ConfigError, Durably, RunState
from durably.testing import Clock, assert_effects, drain, kill_at

sys.path.insert(0, str(Path(__file__).parent))
import shop_app


class Charges:
    """What the tool did, in whatever process."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def lines(self) -> list[str]:
        return self.file.read_text().splitlines()


@pytest.fixture
def charges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Charges:
    file = tmp_path / "charges"
    monkeypatch.setenv(shop_app.CHARGES, str(file))
    return Charges(file)


async def test_a_process_killed_after_its_tool_leaves_the_call_in_doubt(
    durably_make_app: Callable[..., Durably], durably_clock: Clock, charges: Charges
) -> None:
    app = durably_make_app(agents=[shop_app.agent])
    run = await app.enqueue(shop_app.agent, "Charge.", key="k", delay=3600)
    durably_clock.advance(timedelta(hours=1))
    kill = await kill_at(app, shop_app.make_app, "tool:after", tool="charge")
    assert charges.lines == [f"k:1.0 {kill.pid}"]
    assert kill.pid != os.getpid() and "charged" in kill.output
    assert (await run.refresh()).state is RunState.EXECUTING

    assert (await drain(app)).attempts == 1
    await assert_effects(run, {"charge": "in_doubt"})
    assert len(charges.lines) == 1


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_a_process_that_is_not_killed_or_fails_fails_the_test(
    durably_app: Durably, charges: Charges
) -> None:
    await durably_app.enqueue(shop_app.agent, "Charge.", key="k")
    with pytest.raises(
        AssertionError, match=r"(?s)exit code 1.*elsewhere\.db, the test on another"
    ):
        await kill_at(durably_app, shop_app.make_other_app, "tool:after")
    with pytest.raises(ConfigError, match="there is 'tool:after'"):
        await kill_at(durably_app, shop_app.make_app, "tool:afterwards")
    with pytest.raises(ConfigError, match="at the top of no module"):
        await kill_at(durably_app, lambda url: durably_app, "tool:after")
    with pytest.raises(AssertionError, match=r"Nothing came to 'child:after'.*tool:after \(1\)"):
        await kill_at(durably_app, "shop_app:make_app_by_environment", "child:after")
    assert len(charges.lines) == 1, "and the run was executed, there"
