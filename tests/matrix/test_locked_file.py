"""Another process holds the whole file of SQLite's, for longer than anybody waits for a lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.children import Strike
from crash.grounds import Grounds
from crash.processes import Processes, ended
from crash.promises import Moment, check_after_many
from crash.scenarios import MIXED
from crash.undisturbed import EVERYTHING, Undisturbed, each, layer, logs
from durably.ledger.sqlite.connection import BUSY_SECONDS
from matrix import children
from matrix.record import proved

pytestmark = pytest.mark.timeout(3600)

AT_ONCE = 6
"""Most of the time is waiting."""

LOCKED_SECONDS = 2 * BUSY_SECONDS if EVERYTHING else 1.0


@pytest.mark.parametrize("grounds", ["sqlite"], indirect=True)
def test_file_that_somebody_holds_costs_no_run_and_repeats_no_call(
    grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    undisturbed = Undisturbed(MIXED, grounds, tmp_path / "runs", processes)

    def lock(strike: Strike) -> None:
        world = undisturbed.world(str(strike).replace(":", "_"))
        holder = processes.start(children.locker, world.folder, LOCKED_SECONDS)
        args = world.folder, MIXED.name, strike
        assert processes.run(children.locked_out, *args) == 0, logs(world.folder)
        end = Moment.of(world)
        check_after_many(MIXED, undisturbed.end, end, crashes=0)
        assert [attempt["outcome"] for attempt in end.attempts] == ["completed"]
        assert ended(holder) == 0, logs(world.folder)
        proved(
            "database locked by another process",
            moment=layer(strike),
            policy=MIXED.shown,
            database=grounds.dialect,
        )
        undisturbed.clear(world)

    # After the second of each, to be in the middle of the run.
    second = {strike.name: strike for strike in undisturbed.strikes if strike.nth == 2}
    each(list(second.values()) if EVERYTHING else [second["effect:after"]], lock, at_once=AT_ONCE)
