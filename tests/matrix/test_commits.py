"""A connection that is cut while it commits: nobody knows whether that was done, and all is well.

At every commit of a run, of each kind: of what is enqueued, claimed, saved and settled, of every
intent and outcome, of transactional tools, and of what people decide.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crash.children import Strike
from crash.grounds import Grounds
from crash.processes import Processes
from crash.promises import Moment, check_after_many
from crash.scenarios import APPROVED, MIXED, Scenario
from crash.undisturbed import EVERYTHING, Undisturbed, each, layer, logs, some
from matrix import children
from matrix.cuts import Lost
from matrix.record import proved
from support.sample import longer

pytestmark = pytest.mark.timeout(3600)

AT_ONCE = 2

SAMPLE = ("checkpoint", "settle", "decision")


@pytest.mark.parametrize("grounds", ["postgres"], indirect=True)
@pytest.mark.parametrize("scenario", [APPROVED, longer(MIXED)], ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("lost", [longer("request"), "answer"])
def test_commit_whose_outcome_nobody_heard_is_made_once(
    scenario: Scenario, lost: Lost, grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    undisturbed = Undisturbed(scenario, grounds, tmp_path / "runs", processes)

    def cut(strike: Strike | None) -> list[Strike]:
        world = undisturbed.world(str(strike))
        args = world.folder, scenario.name, lost, strike
        assert processes.run(children.connection_cut, *args) == 0, logs(world.folder)
        end = Moment.of(world)
        check_after_many(scenario, undisturbed.end, end, crashes=0)
        assert end.approved == undisturbed.end.approved
        assert end.run is not None
        assert (end.run["crashes"], end.run["failures"]) == (0, 0), "it was the connection"
        if struck := world.records("struck"):
            proved(
                "connection cut",
                moment=layer(Strike(struck[0]["at"].partition(" ")[0])),
                policy=scenario.shown,
                database=grounds.dialect,
            )
        commits = json.loads((world.folder / "commits.json").read_text())
        undisturbed.clear(world)
        return [Strike(name, nth) for name, nth in commits] if strike is None or struck else []

    commits = cut(None)
    assert {strike.name for strike in commits} >= {"enqueue", "dispatch", "checkpoint", "settle"}
    chosen = [s for s in some(commits, layer) if EVERYTHING or s.name in SAMPLE]
    found = each(chosen, cut, at_once=AT_ONCE)
    missed = [strike for strike, commits in zip(chosen, found, strict=True) if not commits]
    # Which outcomes share a commit is another matter each time.
    assert len(missed) <= len(chosen) / 4, missed
