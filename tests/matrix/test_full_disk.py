"""The disk is full in the middle of a run, and has room again: what is done is kept until then."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.children import Strike
from crash.grounds import Grounds
from crash.processes import Processes
from crash.promises import Moment, check_after_many
from crash.scenarios import MIXED
from crash.undisturbed import EVERYTHING, Undisturbed, each, layer, logs
from matrix import children
from matrix.disks import make_room, small_disk
from matrix.record import proved

pytestmark = pytest.mark.timeout(3600)

AT_ONCE = 2


def fill(
    undisturbed: Undisturbed, strike: Strike, processes: Processes, *, real: bool = True
) -> bool:
    """Let a run meet a full disk; whether any write of it did."""
    world = undisturbed.world(str(strike).replace(":", "_"))
    with small_disk(world, real=real) as fault:
        code = processes.run(children.disk_full, world.folder, MIXED.name, strike)
        assert code == 0, logs(world.folder)
        make_room(world)
        end = Moment.of(world)
        check_after_many(MIXED, undisturbed.end, end, crashes=0)
        assert [attempt["outcome"] for attempt in end.attempts] == ["completed"]
        struck = bool(world.records("struck"))
        if struck:
            database = world.database.dialect
            proved(fault, moment=layer(strike), policy=MIXED.shown, database=database)
    undisturbed.clear(world)
    return struck


def test_full_disk_costs_no_run_and_repeats_no_call(
    grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    undisturbed = Undisturbed(MIXED, grounds, tmp_path / "runs", processes)
    # In the middle of the run. At its end nothing more may be written, and a worker that starts
    # without a ledger says so, and leaves it to others to start it again.
    names = [strike.name for strike in undisturbed.strikes]
    begun = min(names.index(name) for name in ("job:before", "model:before") if name in names)
    middle: dict[str, Strike] = {}
    for at, strike in enumerate(undisturbed.strikes):
        if at >= begun and (strike.name not in middle or strike.nth <= 2):
            middle[strike.name] = strike
    strikes = list(middle.values()) if EVERYTHING else [middle["effect:after"]]
    full = each(strikes, lambda at: fill(undisturbed, at, processes), at_once=AT_ONCE)
    assert sum(full) > len(full) / 2, "writes are hardly ever refused"


@pytest.mark.parametrize("grounds", ["postgres"], indirect=True)
def test_run_whose_job_met_a_full_disk_is_not_left_waiting(
    grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    """Nothing is lost: its job ended, and Oban could not write it; no other job comes.

    A volume that is full may have room for that; a trigger has not.
    """
    undisturbed = Undisturbed(MIXED, grounds, tmp_path / "runs", processes)
    assert fill(undisturbed, Strike("job:before"), processes, real=False)
