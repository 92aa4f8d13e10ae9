"""The world outside of thousands of runs: what tools did and which answers were paid, with fsync.

Owns a file for each run, appended to only; a call that nobody made and nobody may make any more is
void there, as a service that takes idempotency keys would have it.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash.world import receipt
from durably import NotDone, boundaries, current_call
from durably.execution.call import Call


class Outside:
    """The record of side effects and paid requests, below a folder.

    The order of the lines in a run's file decides: a call of an attempt that was declared void
    before it acted has no effect. So a tool that was frozen after its last look is refused once
    somebody has found out, and settled, that it had not acted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def act(self, nonce: str) -> str:
        """The side effect of the call that is running; returns what the tool answers.

        Raises:
            NotDone: somebody has settled meanwhile that this attempt's call did not happen.
        """
        call = current_call()
        boundaries.reached("effect:before")
        self._append(
            call.run_key,
            what="effect",
            tool=call.tool_name,
            key=call.idempotency_key,
            attempt=call.attempt,
            nonce=nonce,
            pid=os.getpid(),
        )
        boundaries.reached("effect:after")
        acted = self.of(call.run_key).acted[call.idempotency_key]
        if call.attempt not in [effect["attempt"] for effect in acted]:
            raise NotDone("the service refused it: the call had been declared void")
        return receipt(call.tool_name, call.idempotency_key)

    def pay(self, run_key: str, attempt: int, response: int, nonce: str, saw: list[str]) -> None:
        """A model request was answered, and is on the bill."""
        self._append(run_key, what="paid", attempt=attempt, response=response, nonce=nonce, saw=saw)

    def find(self, run_key: str, key: str, up_to: int) -> bool:
        """Whether a call happened; if not, it cannot any more, in attempts up to this one."""
        self._append(run_key, what="void", key=key, up_to=up_to)
        return bool(self.of(run_key).acted[key])

    def find_call(self, call: Call) -> bool:
        """The same for a later attempt, which asks about those before it."""
        return self.find(call.run_key, call.idempotency_key, call.attempt - 1)

    def first_time(self, run_key: str, what: str) -> bool:
        """Whether nobody has asked this before."""
        known = any(line["what"] == what for line in self._lines(run_key))
        self._append(run_key, what=what)
        return not known

    def of(self, run_key: str) -> Deeds:
        """All that happened for one run."""
        deeds = Deeds()
        void: dict[str, int] = defaultdict(int)
        for line in self._lines(run_key):
            match line["what"]:
                case "void":
                    void[line["key"]] = max(void[line["key"]], line["up_to"])
                case "effect" if line["attempt"] > void[line["key"]]:
                    deeds.acted[line["key"]].append(line)
                case "effect":
                    deeds.refused[line["key"]] += 1
                case "paid":
                    deeds.paid.append(line)
        return deeds

    def _append(self, run_key: str, **facts: Any) -> None:
        file = os.open(self._file(run_key), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, (json.dumps(facts) + "\n").encode())
            os.fsync(file)
        finally:
            os.close(file)

    def _lines(self, run_key: str) -> list[dict[str, Any]]:
        try:
            text = self._file(run_key).read_text("utf-8")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines()]

    def _file(self, run_key: str) -> Path:
        return self._folder / f"{run_key}.jsonl"


@dataclass
class Deeds:
    """What happened outside for one run.

    Attributes:
        acted: the effects of each call, by idempotency key.
        refused: how many calls of each were refused, since they had been declared void.
        paid: the model requests that were answered.
    """

    acted: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    refused: Counter[str] = field(default_factory=Counter)
    paid: list[dict[str, Any]] = field(default_factory=list)
