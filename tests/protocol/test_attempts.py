"""What real attempts do is something that the model may do: real agents, commits, lost answers.

Each scenario runs to its end through `Durably`; what its attempts wrote, asked and did, in that
order, has to be a way through the model.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic_ai import Agent

from durably import (
    Durably,
    EffectState,
    LedgerUnavailable,
    NotDone,
    RunState,
    current_call,
    effects,
)
from durably.errors import LeaseLost
from protocol.model import POLICIES, Action, Size, State, start, steps
from support.scripted import NOW, Script, call

SEEN = {
    "durably.ledger.attempts": "claim complete fail suspend hand_back stop",
    "durably.ledger.steps": "record_step record_intent record_outcome record_doubt find_outcome "
    "withdraw_intent withdraw_late settle_late",
}
HIDDEN = {"calls are over", "check_before_acting", "leave in doubt", "reconcile", "retry"}
HIDDEN |= {"tool raises"}
"""Steps of the model that leave no trace in a recording."""

EVERYTHING = os.environ.get("MODEL_TESTS") == "all"

LOST = ("ask", "idempotent", "transactional")
"""Policies of whose writes `make test` loses each one once."""


class Seen(NamedTuple):
    """A step of a real attempt, or of a person, as the model would name it."""

    name: str
    fate: str = ""
    refused: bool = False


class Recorder:
    """Notes what is written to a ledger; loses one answer, or cuts off one write, on the way.

    Args:
        lose: which write of an attempt, counted from 0; None: none of them.
        committed: whether that write is committed.
    """

    def __init__(self, lose: int | None, committed: bool) -> None:
        self.seen: list[Seen] = []
        self.writes = 0
        self._lose = lose
        self._committed = committed

    def watch(self, app: Durably) -> None:
        """From now on."""
        ledger: Any = app.ledger
        write, transaction = ledger.write, ledger.transaction

        async def watched(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            names = SEEN.get(operation.__module__, "").split()
            if operation.__name__ not in names:
                return await write(operation, *args, **kwargs)
            return await self._write(operation.__name__, args, lambda: write(operation, *args))

        def watched_transaction() -> Any:
            made: Any = transaction()
            commit = made.commit

            async def watched_commit(operation: Any, **options: Any) -> Any:
                try:
                    return await self._write("commit", (), partial(commit, operation, **options))
                except LedgerUnavailable:
                    await made.close()  # Its connection is gone, and with it its lock.
                    raise

            made.commit = watched_commit
            return made

        ledger.write, ledger.transaction = watched, watched_transaction

    async def _write(self, name: str, args: tuple[Any, ...], write: Callable[[], Any]) -> Any:
        mine = name != "claim"
        lose = mine and self.writes == self._lose
        self.writes += mine
        if lose and not self._committed:
            if name == "commit":
                self.seen.append(Seen(name, "cut off"))
            raise LedgerUnavailable("The connection was cut before the commit.")
        try:
            result = await write()
        except LeaseLost:
            self.seen.append(Seen(name, refused=True))
            raise
        self._note(name, args, result, "unanswered" if lose else "")
        if lose:
            raise LedgerUnavailable("The connection was cut after the commit.")
        return result

    def _note(self, name: str, args: tuple[Any, ...], result: Any, fate: str) -> None:
        match name:
            case "claim" if not result:
                return
            case "record_step" if not args[1].messages and not args[1].outcomes:
                return  # Nothing that the model knows of.
            case "withdraw_intent" if not result:
                return  # It tries as late evidence.
            case "withdraw_intent" | "withdraw_late":
                self.seen.append(Seen("withdraw", fate, not result))
            case _:
                self.seen.append(Seen(name, fate))


def _as_seen(action: Action) -> Seen | None:
    """What a recording has of a step of the model; None: nothing."""
    if action.name == "tool raises" and action.how == "after it acted":
        return Seen("act")
    return None if action.name in HIDDEN else Seen(action.name, action.fate, action.refused)


def refusal_of(size: Size, seen: Iterable[Seen]) -> str | None:
    """The first of these steps that the model would not take; None: it may take all of them."""
    states = {start(size)}
    done: list[str] = []
    for step in seen:
        states = {
            after
            for state in _left_alone(size, states)
            for action, after in steps(size, state)
            if _as_seen(action) == step
        }
        done.append(str(step))
        if not states:
            return "\n".join(done)
    return None


def _left_alone(size: Size, states: set[State]) -> set[State]:
    """These states, and all that can be reached from them without being seen."""
    found, todo = set(states), list(states)
    while todo:
        for action, after in steps(size, todo.pop()):
            if _as_seen(action) is None and after not in found:
                found.add(after)
                todo.append(after)
    return found


# --- scenarios


class Watched(Script):
    """A scripted model whose requests are noted."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__([call("act")], "done")
        self._recorder = recorder

    def _answer(self, *args: Any) -> Any:
        self._recorder.seen.append(Seen("request"))
        return super()._answer(*args)


METADATA: dict[str, Callable[[Any], dict[str, Any]]] = {
    "ask": lambda find: effects.once(),
    "tell": lambda find: effects.once(on_doubt="tell"),
    "retry": lambda find: effects.once(on_doubt="retry"),
    "reconcile": lambda find: effects.once(reconcile=find),
    "approved": lambda find: effects.once(approve=True),
    "approved tell": lambda find: effects.once(on_doubt="tell", approve=True),
    "read": lambda find: effects.READ,
    "idempotent": lambda find: effects.IDEMPOTENT,
    "transactional": lambda find: effects.TRANSACTIONAL,
}


def watched_agent(recorder: Recorder, policy: str, error: Exception | None) -> Agent:
    """An agent with one tool, which acts, and raises the first time if there is an error."""
    agent = Agent(Watched(recorder).model, name="watched")
    errors = [] if error is None else [error]

    def find(ctx: Any, this: Any) -> Any:
        return effects.Done("found") if Seen("act") in recorder.seen else NotDone("not there")

    @agent.tool_plain(metadata=METADATA[policy](find))
    def act() -> str:
        if errors and isinstance(errors[0], NotDone):
            raise errors.pop()
        if policy == "transactional":
            with current_call().transaction() as connection:
                connection.execute("INSERT INTO acts VALUES (1)")
        recorder.seen.append(Seen("act"))
        if errors:
            raise errors.pop()
        return "acted"

    return agent


async def run_to_its_end(app: Durably, recorder: Recorder, policy: str, error: Any) -> None:
    """Enqueue, work, and answer what people are asked, with what they can see."""
    app.register(watched_agent(recorder, policy, error), retry=NOW, max_attempts=2)
    run = await app.enqueue("watched", "hi")
    for _ in range(5):
        await app.drain()
        if (await run.refresh()).state is not RunState.SUSPENDED:
            break
        (effect,) = await run.effects()
        if effect.state is EffectState.AWAITING:
            await run.approve("1.0")
            recorder.seen.append(Seen("approve"))
            continue
        happened = Seen("act") in recorder.seen
        await (run.resolve("1.0", done="seen") if happened else run.resolve("1.0", again=True))
        recorder.seen.append(Seen("resolve"))
    assert run.state.final


async def recorded(
    folder: Path, policy: str, error: Exception | None, lose: int | None, *, committed: bool
) -> Recorder:
    """One run in a ledger of its own, from its start to its end."""
    recorder = Recorder(lose, committed)
    path = Path(tempfile.mkdtemp(dir=folder), "ledger.db")
    async with Durably(f"sqlite:///{path}") as app:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE acts (n INTEGER NOT NULL)")
        recorder.watch(app)
        await run_to_its_end(app, recorder, policy, error)
    return recorder


@pytest.mark.parametrize("policy", POLICIES)
async def test_attempts_do_what_the_model_may_do(tmp_path: Path, policy: str) -> None:
    """Also when the answer to any one of their writes is lost, or the write itself."""
    size = Size(((policy,),), faults=2, kinds=frozenset(("tool raises", "lost answer")))
    errors = (None, RuntimeError("gone"), NotDone("refused")) if EVERYTHING else (RuntimeError(),)
    lost = EVERYTHING or policy in LOST
    for error in errors:
        for committed in (True, False) if EVERYTHING or policy == "transactional" else (True,):
            lose: int | None = None
            writes = 0
            while lose is None or (lose < writes and lost):
                run = await recorded(tmp_path, policy, error, lose, committed=committed)
                refusal = refusal_of(size, run.seen)
                assert refusal is None, (
                    f"write {lose} lost; the model takes no such way:\n{refusal}"
                )
                lose, writes = 0 if lose is None else lose + 1, run.writes
