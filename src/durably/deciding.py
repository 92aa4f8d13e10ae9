"""What people decide about a run and its calls.

Owns how a decision is checked before it is written; that it counts once is the ledger's.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Self

from durably import agents, boundaries, replies
from durably.allowed import waits_for_operator
from durably.budgets import Budget, limits_json
from durably.errors import (
    ConfigError,
    EffectNotFound,
    RunNotFound,
    TransitionRefused,
)
from durably.execution.ends import tell_end
from durably.handle import RunHandle
from durably.ledger import actions, budgets, children, decisions, runs
from durably.ledger.actions import NewAction
from durably.ledger.operations import Operation
from durably.lifecycle import EffectState, allowed
from durably.prices import Dollars
from durably.records import Effect, RunRecord

OPERATOR = "operator"
"""Who a decision is put down to when the caller does not say."""


class DecidableRun(RunHandle):
    """A run about which somebody decides."""

    async def raise_budget(
        self,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        tool_calls: int | None = None,
        usd: Dollars | None = None,
        by: str = OPERATOR,
        note: str = "",
    ) -> Self:
        """Set limits of its own budget; those that are not given stay.

        It goes on if it waits for one of them. An attempt under way learns of it once it reaches
        the limit that it knows.

        Args:
            requests, tokens, tool_calls, usd: the new limits, of what it spends altogether.
            note: why; kept with the decision.

        Raises:
            ConfigError: none is given, or one is no number.
            TransitionRefused: it is final, or waits for a limit that would still be used up.
        """
        given = Budget(requests=requests, tokens=tokens, tool_calls=tool_calls, usd=usd)
        if not given.limited:
            raise ConfigError("raise_budget() takes requests=, tokens=, tool_calls= or usd=.")
        limits = limits_json(given)
        await self._decide(
            self._action("raise_budget", by, limits=limits, note=note),
            lambda: budgets.raise_own(self.key, limits, by, note),
        )
        return self

    async def cancel(self, *, by: str = OPERATOR) -> Self:
        """Cancel it; an executing attempt stops within a second.

        Raises:
            TransitionRefused: it is final already.
        """
        await self._decide(self._action("cancel", by), lambda: runs.cancel(self.key, by))
        await tell_end(self._ledger, self.record)
        return self

    async def retry(self, *, by: str = OPERATOR) -> Self:
        """Let a discarded or cancelled run go on where it was, or accept a changed agent.

        Children that were cancelled with it, and that it still waits for, go on as well. A run of a
        thread may have to wait for its turn. One that waits for a budget looks at it again: its
        agent's may be another by now.

        Raises:
            TransitionRefused: it is neither, nor suspended because its agent changed, or for a
                budget; or later runs of its thread have begun.
        """
        await self.refresh()
        transition = runs.wake if waits_for_operator(self.record) else runs.revive
        if allowed("revive", self.state):
            # Before the parent, which would take them for ended otherwise.
            for child in await self._ledger.read(children.list_waited_for, self.record.id):
                with contextlib.suppress(TransitionRefused, RunNotFound):
                    await self._ledger.write(runs.revive, child.key, children.BY_PARENT)
        await self._decide(self._action("retry", by), lambda: transition(self.key, by))
        return self

    async def resolve(
        self,
        call_id: str,
        *,
        done: Any = ...,
        failed: str | None = None,
        again: bool = False,
        by: str = OPERATOR,
        note: str = "",
    ) -> Self:
        """Settle a call that is in doubt, or that awaits an answer.

        Exactly one of:

        Args:
            done: it happened, and this is its result.
            failed: it did not work, and this is what the model is told.
            again: it did not happen: run it again.

        Raises:
            ConfigError: none, or more than one, of the three is given.
            EffectNotFound: the run has no such call.
            TransitionRefused: the call is settled, or the run is final.
        """
        given = [done is not ..., failed is not None, again]
        if sum(given) != 1:
            raise ConfigError("resolve() takes exactly one of done=, failed= and again=True.")
        state, result = _decision(call_id, done, failed)
        place = await self._place(call_id)
        decision = "again" if again else "done" if failed is None else "failed"
        await self._decide(
            self._action("resolve", by, place, decision=decision, reason=failed, note=note),
            lambda: decisions.resolve(self.key, place, state, result, failed, by, note),
        )
        return self

    async def approve(
        self,
        call_id: str,
        *,
        args: Mapping[str, Any] | None = None,
        expected: Mapping[str, Any] | None = None,
        by: str = OPERATOR,
        note: str = "",
    ) -> Self:
        """Let a call run that waits for approval.

        Args:
            args: run it with these arguments instead of those that the model gave.
            expected: the arguments that the decision is about: refused if they are others by now.
            note: why; kept with the decision.

        Raises:
            ConfigError: the tool does not take the arguments.
            EffectNotFound: the run has no such call.
            TransitionRefused: the call waits for no approval, somebody was faster, or the run is
                final; the message says which.
        """
        effect = await self._asked(call_id)
        edited = None if args is None else replies.edited_args(effect, args)
        seen = None
        if expected is not None:
            same = json.loads(effect.args or "{}") == dict(expected)
            seen = effect.args if same else json.dumps(dict(expected))
        other = {"edited": True} if edited is not None else {}
        await self._decide(
            self._action("approve", by, effect.call_id, note=note, **other),
            lambda: decisions.approve(self.key, effect.call_id, edited, seen, by, note),
        )
        return self

    async def deny(
        self, call_id: str, *, reason: str = "It was denied.", by: str = OPERATOR
    ) -> Self:
        """Keep a call from running that waits for a person; the model reads the reason.

        Raises:
            EffectNotFound, TransitionRefused: as for `approve`.
        """
        place = await self._place(call_id)
        told = decisions.denial(reason)
        await self._decide(
            self._action("deny", by, place, reason=reason),
            lambda: decisions.decide(
                self.key, place, "denied", EffectState.DENIED, told, None, by, reason
            ),
        )
        return self

    async def answer(self, call_id: str, value: Any, *, by: str = OPERATOR, note: str = "") -> Self:
        """Answer a question, or in the place of a call that nobody here can make.

        Raises:
            ConfigError: it is none of the choices, or not what the form asks for.
            EffectNotFound, TransitionRefused: as for `approve`.
        """
        effect = await self._asked(call_id)
        checked = replies.checked_answer(effect, value)
        result = agents.recorded.returned(effect.tool_name, checked)
        await self._decide(
            self._action("answer", by, effect.call_id, note=note),
            lambda: decisions.decide(
                self.key, effect.call_id, "answered", EffectState.DONE, result, None, by, note
            ),
        )
        return self

    def _action(self, action: str, by: str, subject: str = "", **data: Any) -> NewAction:
        return NewAction(action, by, self.key, subject, data)

    async def _decide(
        self, action: NewAction, operation: Callable[[], Operation[RunRecord]]
    ) -> None:
        boundaries.reached("decision:before")
        self.record = await self._ledger.write(actions.recorded, action, operation)
        boundaries.reached("decision:after")

    async def _place(self, call_id: str) -> str:
        """The call's own id; what was given if there is none, which the write will say."""
        with contextlib.suppress(EffectNotFound):
            return (await self._asked(call_id)).call_id
        return call_id

    async def _asked(self, call_id: str) -> Effect:
        return await self._ledger.read(decisions.find, self.key, call_id)


def _decision(call_id: str, done: Any, reason: str | None) -> tuple[EffectState | None, str | None]:
    if done is not ...:
        return EffectState.DONE, agents.recorded.returned(call_id, done)
    if reason is not None:
        return EffectState.FAILED, agents.recorded.failed(reason)
    return None, None
