"""The policy ``once``: intent, run, outcome; and what is done about a call in doubt.

Owns the decision between reconcile, ask, tell and retry; the words of it are `doubt`'s.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic_ai import ApprovalRequired, CallDeferred, ModelRetry

from durably.agents import recorded
from durably.agents.doubt import Verdict, reconcile, told
from durably.agents.guarded import Guarded
from durably.agents.late import (
    NOT_STARTED,
    finish_even_if_lost,
    go_on,
    report_late,
    withdraw_quietly,
)
from durably.effects import EffectKind
from durably.errors import LeaseLost, NotDone, ResultNotSerializable
from durably.execution.outcome import AttemptEnds
from durably.ledger.written import CallOutcome
from durably.lifecycle import EffectState
from durably.records import Effect
from durably.retry import nothing_was_sent
from durably.wording import text_of, worded


async def once(guarded: Guarded) -> Any:
    """At most once: intent, run, outcome; what ends otherwise is in doubt."""
    call = guarded.call
    try:
        effect = await guarded.journal.effects.begin(call)
    except asyncio.CancelledError:
        # The intent may have been committed, but the tool was not started.
        await withdraw_quietly(guarded, NOT_STARTED)
        raise
    if effect.state.settled:
        return guarded.replay(effect)
    try:
        result = await finish_even_if_lost(guarded)
    except AttemptEnds:
        if not guarded.started:
            await withdraw_quietly(guarded, NOT_STARTED)
        raise
    except (ApprovalRequired, CallDeferred):
        guarded.doubted = False  # A person decides about it now.
        await withdraw_quietly(guarded, "deferred")
        raise
    except Exception as error:
        return await _once_raised(guarded, error)
    try:
        envelope = recorded.returned(call.tool_name, result)
    except ResultNotSerializable as error:
        # It happened, but what it returned cannot be kept: a person will have to say.
        await guarded.journal.effects.finish(
            CallOutcome(call, EffectState.IN_DOUBT, error=text_of(error))
        )
        raise
    return await _record_once(guarded, guarded.done(envelope), result)


async def _record_once(guarded: Guarded, outcome: CallOutcome, result: Any) -> Any:
    try:
        effect = await guarded.journal.effects.finish(outcome)
    except (LeaseLost, asyncio.CancelledError):
        if guarded.journal.control.lost:
            go_on(report_late(guarded, outcome))
        raise
    if effect.result != outcome.result:
        assert effect.result is not None, "only a settled effect is left as it stands"
        return recorded.replay(effect.result)
    return result


async def _once_raised(guarded: Guarded, error: Exception) -> Any:
    call = guarded.call
    envelope = recorded.answer_envelope(error)
    if envelope is not None:
        await _record_once(guarded, guarded.failed(envelope), None)
        raise error
    if isinstance(error, NotDone) or nothing_was_sent(error):
        await withdraw_quietly(guarded, worded(error))
        raise error
    why = worded(error)
    effect = await guarded.journal.effects.finish(
        CallOutcome(call, EffectState.IN_DOUBT, error=why)
    )
    return await settle_doubt(guarded, effect, error)


async def settle_doubt(guarded: Guarded, effect: Effect, error: Exception | None = None) -> Any:
    """A call that may have happened: reconcile, then ask, tell or retry as declared."""
    if effect.result is not None:
        return guarded.replay(effect)
    call, policy = guarded.call, guarded.policy
    if policy.reconcile is not None:
        verdict, result = await reconcile(policy.reconcile, guarded.ctx, guarded.describe())
        if verdict is Verdict.DONE:
            outcome = guarded.done(recorded.returned(call.tool_name, result))
            return guarded.counted(await _record_once(guarded, outcome, result))
        if verdict is Verdict.NOT_DONE:
            if error is not None and guarded.repeated:
                raise error  # As often as that in one attempt; the next one waits a while first.
            guarded.repeated = True
            return await _again(guarded)
    if policy.on_doubt == "retry" and policy.kind is EffectKind.ONCE:
        if error is not None:
            raise error  # This attempt fails; the next one repeats the call.
        guarded.doubted = True
        return await _again(guarded)
    text = None
    doubt = CallOutcome(call, EffectState.IN_DOUBT, error=effect.error, asked=True)
    if policy.on_doubt == "tell":
        text = told(call.tool_name, effect.error)
        doubt = CallOutcome(
            call, EffectState.IN_DOUBT, result=guarded.unknown(text), error=effect.error
        )
    now = await guarded.journal.effects.doubt(doubt)
    if now is None or now.state is EffectState.AWAITING:
        # Withdrawn since this attempt began, by the one that had not started it after all, or by a
        # person; a call that was approved still is.
        return await _again(guarded)
    if now.state.settled:
        return guarded.replay(now)
    if text is not None:
        return guarded.tell(text)
    raise guarded.ask()


async def _again(guarded: Guarded) -> Any:
    if not guarded.fit or guarded.call.tool_name in guarded.state.stand_ins:
        raise ModelRetry(
            f"The call of {guarded.call.tool_name!r} did not happen, and the tool has changed "
            "since: look at the tools as they are now."
        )
    return await once(guarded)
