"""Everybody else's part in a run that waits: they decide, answer, send signals, and call it off.

Their process dies with the worker's. Whoever was killed does not know whether they were heard, so
the next one does it all again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from crash.waiting import ANSWER, EARLY, LAPSING, LATE, Waiting
from crash.world import World, receipt
from durably import Durably, Run, RunState, TransitionRefused, maintenance
from durably.records import Effect

PATIENCE_SECONDS = 300
LOOK_SECONDS = 0.03


async def keep_company(waiting: Waiting, app: Durably, run: Run[str], world: World) -> None:
    """Work, and play everybody's part, until all runs have ended and everybody knows."""
    # Nobody here has to wait for a second until a timer rings.
    maintenance.LOOK_SECONDS = LOOK_SECONDS
    people = People(waiting, app, world)
    await people.send_ahead(run)
    async with app.worker(), asyncio.timeout(PATIENCE_SECONDS):
        while True:
            family = [await run.refresh(), *await run.children()]
            if all(member.state.final and not member.record.tells_end for member in family):
                return
            for member in family:
                await people.look_after(member)
            if waiting.ends == "cancelled":
                await people.call_off(family)
            await asyncio.sleep(LOOK_SECONDS)


class People:
    """All that has to be done about one run, and the one that it starts."""

    def __init__(self, waiting: Waiting, app: Durably, world: World) -> None:
        self._waiting = waiting
        self._app = app
        self._world = world
        self._has_sent = False

    async def send_ahead(self, run: Run[str]) -> None:
        """Signals that nobody waits for yet; if the run is over, they came in time."""
        if "listen" not in self._waiting.tools:
            return
        with suppress(TransitionRefused):
            for payload in EARLY:
                await self._app.signal(run.key, "part", payload, signal_id=payload, by="early")

    async def look_after(self, run: Run[Any]) -> None:
        for effect in await run.effects():
            if effect.asked:
                await self._decide(run, effect)
            elif effect.awaits == "late" and not self._has_sent:
                # Again where the last process may have; if the run is over, it came in time.
                with suppress(TransitionRefused):
                    await self._app.signal(run.key, "late", LATE, signal_id="late", by="bank")
                self._has_sent = True

    async def call_off(self, family: list[Run[Any]]) -> None:
        """Cancel the run once its child waits."""
        parent, *others = family
        if any(child.state is RunState.SUSPENDED for child in others) and not parent.state.final:
            with suppress(TransitionRefused):
                await parent.cancel(by="ann")

    async def _decide(self, run: Run[Any], effect: Effect) -> None:
        """Approve, answer, and settle calls in doubt by what the file says."""
        happened = self._world.effects()[effect.idempotency_key] > 0
        match effect.ask:
            case "approval" if effect.tool_name != LAPSING:
                assert not happened, "it waits, and has happened"
                await run.approve(effect.call_id, by="ann")
            case "question":
                await run.answer(effect.call_id, ANSWER, by="ann")
            case "doubt":
                self._world.record("asked", key=effect.idempotency_key, happened=happened)
                tool = effect.tool_name
                if happened:
                    answer = receipt(tool, effect.idempotency_key)
                    await run.resolve(effect.call_id, done=answer, by="ann")
                else:
                    await run.resolve(effect.call_id, again=True, by="ann")
            case _:
                assert effect.tool_name == LAPSING, effect
