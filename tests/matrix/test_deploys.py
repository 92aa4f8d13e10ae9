"""A worker is killed, and the next one is deployed with other tools, prompt and model.

What is saved and done stays so; the change is settled by what the new version says about it.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from crash import children as crashing
from crash.children import Strike
from crash.grounds import Grounds
from crash.processes import Processes
from crash.promises import Moment, check_after_deploy, check_after_discard
from crash.scenarios import MIXED
from crash.undisturbed import EVERYTHING, SEED, Undisturbed, each, layer, logs
from matrix import children
from matrix.record import proved
from matrix.versions import OnChange
from support.sample import longer

pytestmark = pytest.mark.timeout(3600)

AT_ONCE = 2


@pytest.mark.parametrize(
    ("on_change", "grounds"),
    [
        ("continue", "sqlite"),
        longer("suspend", "sqlite"),
        longer("discard", "sqlite"),
        longer("continue", "postgres"),
        ("suspend", "postgres"),
        longer("discard", "postgres"),
    ],
    indirect=["grounds"],
)
def test_deploy_in_the_middle_of_a_run_keeps_every_promise(
    on_change: OnChange, grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    undisturbed = Undisturbed(MIXED, grounds, tmp_path / "runs", processes)

    def deploy(strike: Strike) -> None:
        world = undisturbed.world(str(strike).replace(":", "_"))
        code = processes.run(crashing.killed, world.folder, MIXED.name, strike)
        assert code == -signal.SIGKILL, logs(world.folder)
        world.database.wait_until_left()
        struck = Moment.of(world)
        code = processes.run(children.deployed_anew, world.folder, on_change)
        assert code == 0, logs(world.folder)
        end = Moment.of(world)
        changed = world.database.rows("SELECT 1 FROM durably_events WHERE kind = 'agent_changed'")
        # Of a run that had begun and was not over; also if only the last response was to settle.
        begun = any(attempt["fingerprint"] for attempt in struck.attempts)
        meets = begun and struck.run is not None and struck.run["state"] == "executing"
        assert len(changed) == meets, struck.attempts
        waited = world.records("waits for acceptance")
        assert [fact["paid"] for fact in waited] == (
            [struck.paid] if meets and on_change == "suspend" else []
        )
        if meets and on_change == "discard":
            assert end.run is not None and end.run["state"] == "discarded"
            check_after_discard(MIXED, undisturbed.end, struck, end)
        else:
            check_after_deploy(MIXED, undisturbed.end, struck, end)
        proved(
            "deploy with other tools, prompt and model",
            moment=layer(strike),
            policy=f"all, on_change={on_change}",
            database=grounds.dialect,
        )
        undisturbed.clear(world)

    each(drawn(undisturbed.strikes), deploy, at_once=AT_ONCE)


def drawn(strikes: list[Strike]) -> list[Strike]:
    """One of each boundary, once there is a run, whose coming does not depend on the others'."""
    first = next(at for at, strike in enumerate(strikes) if strike.name == "model:before")
    draw = random.Random(SEED)
    reached: dict[str, list[Strike]] = {}
    for strike in strikes[first:]:
        if layer(strike) != "commit":
            reached.setdefault(strike.name, []).append(strike)
    if not EVERYTHING:
        return [draw.choice(reached["effect:after"])]
    return [draw.choice(times) for times in reached.values()]
