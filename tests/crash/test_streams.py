"""A worker that is killed in the middle of a message, while a third process watches the run."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from crash import children
from crash.grounds import Grounds
from crash.jobs import JOBS
from crash.processes import Processes, ended
from crash.promises import Moment
from crash.undisturbed import logs
from crash.world import World
from matrix.record import proved
from support.spoken import Onlooker

pytestmark = pytest.mark.timeout(1800)

WHOLE = "Half a message is none."


def test_watcher_sees_half_a_message_taken_back_and_the_whole_one_come(
    grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    world: World = grounds.world(tmp_path / "world")
    eye = Onlooker()

    async def watch() -> None:
        app, agent = JOBS["speaking"](world)
        async with app, asyncio.timeout(children.PATIENCE_SECONDS):
            run = await app.enqueue(agent, "Speak.", key="order-42")
            watching = asyncio.create_task(eye.watch(run))
            first = processes.start(children.worker, world.folder, "speaking")
            await eye.sees(lambda draft: draft.text == "Half a")()
            assert first.pid is not None
            os.kill(first.pid, signal.SIGKILL)
            assert await asyncio.to_thread(ended, first) == -signal.SIGKILL
            children.let_leases_end(world)
            world.open_gate()
            processes.start(children.worker, world.folder, "speaking")
            await watching
            assert await run.result() == WHOLE

    try:
        asyncio.run(watch())
    except TimeoutError:
        pytest.fail(logs(world.folder))
    kinds = [event.kind for event in eye.events if event.kind != "delta"]
    assert kinds == ["enqueued", "claimed", "withdrawn", "rescued", "claimed", "step", "completed"]
    assert "Half a" in eye.texts and eye.draft.text == ""
    assert all(WHOLE.startswith(text) for text in eye.texts)
    end = Moment.of(world)
    assert (end.deltas, end.withdrawn) == (0, [1])
    proved("process killed", moment="delta", policy="no tool", database=grounds.dialect)
