"""Everybody else's part in a run that waits: people decide, signals come, timers ring at once.

Owns what is decided; what really happened to a call in doubt is looked up in the notes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from durably.app import Durably
from durably.crashtest.notes import RUN, Notes
from durably.errors import ConfigError, DurablyError, EffectNotFound, TransitionRefused
from durably.ledger import waits
from durably.lifecycle import EffectState, RunState
from durably.records import Effect
from durably.run import Run
from durably.worker import Worker

BY = "crashtest"

LOOK_SECONDS = 0.02
"""How often it is looked whether anything waits."""

TRIES = 3
"""How often a call is run again whose outcome stays in doubt."""


class Stuck(DurablyError):
    """The run waits for something that nobody here can decide."""


@dataclass(frozen=True)
class Manners:
    """How the others decide.

    Attributes:
        approve: whether calls that wait for approval are approved, or denied.
        answers: what questions are answered with; empty: nobody knows an answer.
        signals: what is sent when a run waits for a signal, by its name.
        results: what the calls of the recorded run returned, by idempotency key.
    """

    approve: bool
    answers: tuple[Any, ...]
    signals: Mapping[str, Any]
    results: Mapping[str, str | None]


async def family_of(run: Run[Any]) -> list[Run[Any]]:
    """A run, as it is now, and all that it has started, directly or not."""
    found = [await run.refresh()]
    for member in found:
        found += await member.children()
    return found


async def keep_company(
    app: Durably, run: Run[Any], worker: Worker, manners: Manners, notes: Notes
) -> None:
    """Decide whatever the run and its children wait for, until all of them have ended.

    Raises:
        Stuck: one waits for what nobody here can decide; says what would help.
    """
    others = Company(app, manners, notes)
    while True:
        family = await family_of(run)
        if all(member.state.final and not member.record.tells_end for member in family):
            return
        if worker.leaving:
            raise Stuck("The worker left by itself; its log says why.")
        for member in family:
            if member.state is RunState.SUSPENDED:
                with suppress(TransitionRefused):  # It went on meanwhile, or has ended.
                    await others.look_after(member)
        await asyncio.sleep(LOOK_SECONDS)


class Company:
    """People, senders of signals, and the clock."""

    def __init__(self, app: Durably, manners: Manners, notes: Notes) -> None:
        self._app = app
        self._manners = manners
        self._notes = notes

    async def look_after(self, run: Run[Any]) -> None:
        waiting = run.record.waiting_on or {}
        if waiting.get("kind") in ("budget", "change"):
            raise Stuck(f"{run.describe_waiting()} Nobody does so here.")
        for effect in await run.effects():
            if effect.asked:
                await self._decide(run, effect)
            elif effect.state is EffectState.AWAITING and effect.ask in ("timer", "signal"):
                await self._let_come(run, effect)

    async def _let_come(self, run: Run[Any], effect: Effect) -> None:
        """Time is moved, not waited for; a signal comes if one was given, or else does not."""
        name = effect.awaits or ""
        if effect.ask == "signal" and name in self._manners.signals:
            payload = self._manners.signals[name]
            signal_id = f"{BY} {effect.call_id}"
            await self._app.signal(run.key, name, payload, signal_id=signal_id, by=BY)
        elif effect.ask == "timer" or effect.expires_at is not None:
            await self._app.ledger.write(waits.time_out, effect)
        else:
            raise Stuck(
                f"Tool {effect.tool_name!r} waits for the signal {name!r}: say what comes, with "
                f"--signal {name}=JSON."
            )

    async def _decide(self, run: Run[Any], effect: Effect) -> None:
        match effect.ask:
            case "approval" if self._manners.approve:
                await run.approve(effect.call_id, by=BY)
            case "approval":
                await run.deny(effect.call_id, by=BY)
            case "question" | "answer":
                await self._answer(run, effect)
            case _:
                await self._settle(run, effect)

    async def _answer(self, run: Run[Any], effect: Effect) -> None:
        asks = f"Tool {effect.tool_name!r} asks a person"
        if question := effect.request.get("question"):
            asks = f"{asks} {question!r}"
        if not self._manners.answers:
            raise Stuck(f"{asks}: say what they answer, with --answer JSON.")
        try:
            await run.answer(effect.call_id, self._manners.answers[0], by=BY)
        except (ConfigError, EffectNotFound) as error:
            raise Stuck(f"{asks}, and --answer does not answer that: {error}") from error

    async def _settle(self, run: Run[Any], effect: Effect) -> None:
        """Say of a call in doubt what really happened, as a person would who looks outside."""
        mine = [n for n in self._notes.read() if _is_of(n, run.key, effect, self._notes.key)]
        ended = [note for note in mine if note["what"] == "ended"]
        if ended:
            await self._say(run, effect, ended[-1].get("result"))
            return
        if mine and mine[-1]["what"] == "raised":
            raise Stuck(
                f"Tool {effect.tool_name!r} raised {mine[-1]['error']}, which leaves in doubt what "
                "it did, and nobody here knows: let it raise ModelRetry or NotDone, or answer."
            )
        if sum(note["what"] == "settled" for note in mine) >= TRIES:
            why = f": {effect.error}" if effect.error else "."
            raise Stuck(f"Call {effect.call_id} of {effect.tool_name!r} stays in doubt{why}")
        began = any(note["what"] == "began" for note in mine)
        await run.resolve(effect.call_id, again=True, by=BY)
        self._note(run, effect, "again", "was cut off in the middle" if began else "had not begun")

    async def _say(self, run: Run[Any], effect: Effect, result: str | None) -> None:
        if result is None:  # A step: only that it ended is known here.
            key = effect.idempotency_key.replace(self._notes.key, RUN)
            result = self._manners.results.get(key)
        answer: dict[str, Any] = json.loads(result or "{}")
        text = answer.get("failed", answer.get("retry"))
        if text is not None:
            await run.resolve(effect.call_id, failed=str(text), by=BY)
        else:
            returned: dict[str, Any] = answer.get("return") or {}
            await run.resolve(effect.call_id, done=returned.get("return_value"), by=BY)
        self._note(run, effect, "done" if text is None else "failed", "had ended")

    def _note(self, run: Run[Any], effect: Effect, how: str, because: str) -> None:
        self._notes.write(
            "settled",
            run=run.key,
            call=effect.call_id,
            tool=effect.tool_name,
            how=how,
            because=because,
        )


def _is_of(note: Mapping[str, Any], run: str, effect: Effect, key: str) -> bool:
    return note.get("run") == run.replace(key, RUN) and note.get("call") == effect.call_id
