"""The capability around tool calls: consult the ledger, run at most what the policy allows.

Owns the effect policies in action; the journal makes things durable, `recorded` speaks to
pydantic-ai.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ValidationError
from pydantic_ai import ApprovalRequired, CallDeferred, ModelRetry, RunContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.capabilities.abstract import WrapToolExecuteHandler, WrapToolValidateHandler
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolDefinition
from pydantic_ai.toolsets import AbstractToolset
from pydantic_core import to_json

from durably import boundaries
from durably.agents import recorded
from durably.agents.checkpoints import AttemptState
from durably.agents.deferred import answer_deferred
from durably.agents.doubt import Verdict, reconcile, told
from durably.agents.gone import WithStandIns
from durably.agents.positions import position_of
from durably.effects import DEFAULT, EffectKind, EffectPolicy, policy_of
from durably.errors import LeaseLost, LedgerUnavailable, NotDone, ResultNotSerializable
from durably.execution.call import Call, set_current_call
from durably.execution.control import Ending
from durably.execution.journal import Journal
from durably.execution.outcome import AttemptEnds
from durably.ledger.steps import CallOutcome, ToolCall, record_outcome
from durably.lifecycle import EffectState
from durably.records import CallPosition, Effect
from durably.retry import nothing_was_sent

log = logging.getLogger(__name__)

NOT_STARTED = "stopped before it started"

_late: set[asyncio.Task[None]] = set()
"""Tools that finish after their attempt ended; kept here so that they are not forgotten."""


@dataclass
class Guarded:
    """One tool call in flight: what the ledger calls it and how to run it."""

    ctx: RunContext[Any]
    call: ToolCall
    args: dict[str, Any]
    policy: EffectPolicy
    handler: WrapToolExecuteHandler
    started: bool = False


@dataclass
class EffectGuard(AbstractCapability[Any]):
    """Innermost: intent is recorded last before the tool runs, its result first after it."""

    state: AttemptState | None = None
    default_effect: EffectPolicy = DEFAULT
    unfit: set[CallPosition] = field(default_factory=set[CallPosition])

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="innermost")

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        return WithStandIns(toolset, self._attempt)

    async def wrap_tool_validate(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: str | dict[str, Any],
        handler: WrapToolValidateHandler,
    ) -> dict[str, Any]:
        """Let a recorded call through even if the tool's schema has changed since.

        Otherwise the model would be asked to make a call again that has already happened.
        """
        position = self._position(ctx, call)
        found = None if position is None else self._journal.effect(position)
        if position is None or found is None:
            return await handler(args)
        if found.state.settled:
            return _as_object(args)
        try:
            return await handler(args)
        except (ValidationError, ModelRetry):
            self.unfit.add(position)
            return _as_object(args)

    async def wrap_tool_execute(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: WrapToolExecuteHandler,
    ) -> Any:
        position = self._position(ctx, call)
        if position is None:
            return await handler(args)
        found = self._journal.effect(position)
        if found is not None and found.state.settled:
            return self._replay(ctx, found)
        self._journal.control.check_before_acting()
        guarded = self._guarded(ctx, position, call, tool_def, args, handler)
        if found is not None and found.state is EffectState.AWAITING:
            raise CallDeferred
        if found is not None:
            return await self._settle_doubt(guarded, found)
        match guarded.policy.kind:
            case EffectKind.READ | EffectKind.IDEMPOTENT:
                return await self._repeatable(guarded)
            case EffectKind.TRANSACTIONAL:
                return await self._transactional(guarded)
            case EffectKind.ONCE:
                return await self._once(guarded)

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Calls that nobody in this process can settle wait in the ledger for a person."""

        def positioned(call: ToolCallPart) -> tuple[ToolCall, Effect | None]:
            position = self._position(ctx, call)
            assert position is not None, "only the model's own calls are deferred"
            found = self._journal.effect(position)
            return self._tool_call(position, call, None, DEFAULT), found

        return answer_deferred(self._journal, requests, positioned)

    # --- the four policies

    async def _repeatable(self, guarded: Guarded) -> Any:
        """READ and IDEMPOTENT: nothing before; the result with the next write."""
        soon = guarded.policy.kind is EffectKind.IDEMPOTENT
        try:
            result = await self._run(guarded)
        except Exception as error:
            envelope = recorded.answer_envelope(error)
            if envelope is not None:
                self._journal.keep(_failed(guarded.call, envelope), soon=soon)
            raise
        envelope = recorded.returned(guarded.call.tool_name, result)
        self._journal.keep(_done(guarded.call, envelope), soon=soon)
        return result

    async def _transactional(self, guarded: Guarded) -> Any:
        """Writes and result commit together; found without an outcome, nothing has happened."""
        transaction = self._journal.ledger.transaction()
        current = self._current(guarded, transaction)
        try:
            result = await self._run(guarded, current)
            envelope = recorded.returned(guarded.call.tool_name, result)
            outcome = _done(guarded.call, envelope)
            if not current.transaction_begun:
                await self._journal.finish(outcome)
                return result

            def commit() -> None:
                transaction.run(record_outcome(self._journal.claim, outcome))
                transaction.commit()

            self._journal.control.check_before_acting()
            await _to_its_end(asyncio.to_thread(commit))
            return result
        except Exception as error:
            envelope = recorded.answer_envelope(error)
            if envelope is not None:
                self._journal.keep(_failed(guarded.call, envelope))
            raise
        finally:
            transaction.close()

    async def _once(self, guarded: Guarded) -> Any:
        """At most once: intent, run, outcome; what ends otherwise is in doubt."""
        call = guarded.call
        try:
            effect = await self._journal.begin(call)
        except asyncio.CancelledError:
            # The intent may have been committed, but the tool was not started.
            await self._withdraw_quietly(call, NOT_STARTED)
            raise
        if effect.state.settled:
            return self._replay(guarded.ctx, effect)
        try:
            result = await self._finish_even_if_lost(guarded)
        except AttemptEnds:
            if not guarded.started:
                await self._withdraw_quietly(call, NOT_STARTED)
            raise
        except (ApprovalRequired, CallDeferred):
            await self._journal.withdraw(call, "deferred")
            raise
        except Exception as error:
            return await self._once_raised(guarded, error)
        try:
            envelope = recorded.returned(call.tool_name, result)
        except ResultNotSerializable as error:
            # It happened, but what it returned cannot be kept: a person will have to say.
            await self._journal.finish(CallOutcome(call, EffectState.IN_DOUBT, error=str(error)))
            raise
        return await self._record_once(guarded, _done(call, envelope), result)

    async def _record_once(self, guarded: Guarded, outcome: CallOutcome, result: Any) -> Any:
        try:
            effect = await self._journal.finish(outcome)
        except (LeaseLost, asyncio.CancelledError):
            if self._journal.control.lost:
                await self._report_late(outcome)
            raise
        if effect.result != outcome.result:
            assert effect.result is not None, "only a settled effect is left as it stands"
            return recorded.replay(effect.result)
        return result

    async def _once_raised(self, guarded: Guarded, error: Exception) -> Any:
        call = guarded.call
        envelope = recorded.answer_envelope(error)
        if envelope is not None:
            await self._record_once(guarded, _failed(call, envelope), None)
            raise error
        if isinstance(error, NotDone) or nothing_was_sent(error):
            await self._journal.withdraw(call, f"{type(error).__name__}: {error}")
            raise error
        why = f"{type(error).__name__}: {error}"
        effect = await self._journal.finish(CallOutcome(call, EffectState.IN_DOUBT, error=why))
        return await self._settle_doubt(guarded, effect, error)

    # --- doubt

    async def _settle_doubt(
        self, guarded: Guarded, effect: Effect, error: Exception | None = None
    ) -> Any:
        """A call that may have happened: reconcile, then ask, tell or retry as declared."""
        if effect.result is not None:
            return self._replay(guarded.ctx, effect)
        call, policy = guarded.call, guarded.policy
        if policy.reconcile is not None:
            verdict, result = await reconcile(
                policy.reconcile, guarded.ctx, self._current(guarded, None)
            )
            if verdict is Verdict.DONE:
                outcome = _done(call, recorded.returned(call.tool_name, result))
                return _counted(guarded.ctx, await self._record_once(guarded, outcome, result))
            if verdict is Verdict.NOT_DONE:
                return await self._again(guarded)
        if policy.on_doubt == "retry" and policy.kind is EffectKind.ONCE:
            if error is not None:
                raise error  # This attempt fails; the next one repeats the call.
            return await self._again(guarded)
        if policy.on_doubt == "tell":
            text = told(call.tool_name, effect.error)
            envelope = recorded.returned(call.tool_name, text)
            await self._journal.finish(
                CallOutcome(call, EffectState.IN_DOUBT, result=envelope, error=effect.error)
            )
            return _counted(guarded.ctx, text)
        await self._journal.finish(
            CallOutcome(call, EffectState.IN_DOUBT, error=effect.error, asked=True)
        )
        self._attempt.asked[call.tool_call_id] = call.position.call_id
        raise CallDeferred

    async def _again(self, guarded: Guarded) -> Any:
        if guarded.call.position in self.unfit or guarded.call.tool_name in self._attempt.stand_ins:
            raise ModelRetry(
                f"The call of {guarded.call.tool_name!r} did not happen, and the tool has changed "
                "since: look at the tools as they are now."
            )
        return await self._once(guarded)

    # --- running the tool

    async def _run(self, guarded: Guarded, current: Call | None = None) -> Any:
        set_current_call(current or self._current(guarded, None))
        boundaries.reached("tool:before")
        # Frozen since the last look, or kept waiting for the loop? Then another attempt may be
        # asking about this call by now.
        self._journal.control.check_before_acting()
        guarded.started = True
        result = await guarded.handler(guarded.args)
        boundaries.reached("tool:after")
        return result

    async def _finish_even_if_lost(self, guarded: Guarded) -> Any:
        """Run a once tool; if the attempt is lost meanwhile, let it finish and report."""
        task = asyncio.create_task(self._run(guarded))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            control = self._journal.control
            if control.ending is None and not task.done():
                # Another call of this batch failed. That is no reason to lose what this one does,
                # and a thread could not be stopped anyway. A second cancellation has a reason.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            if control.ending is Ending.LOST and not task.done():
                late = asyncio.create_task(self._await_late(guarded, task))
                _late.add(late)
                late.add_done_callback(_late.discard)
            else:
                task.cancel()
                await asyncio.wait({task}, timeout=1)
                await self._keep_what_ended(guarded, task)
            raise

    async def _keep_what_ended(self, guarded: Guarded, task: asyncio.Task[Any]) -> None:
        """A tool that ended although its attempt was stopped has an outcome after all."""
        call = guarded.call
        if task.done() and not guarded.started:
            await self._withdraw_quietly(call, NOT_STARTED)
            return
        error = _error_of(task)
        if error is not None and (
            isinstance(error, NotDone | ApprovalRequired | CallDeferred) or nothing_was_sent(error)
        ):
            await self._withdraw_quietly(call, f"{type(error).__name__}: {error}")
            return
        outcome = _outcome_of(call, task)
        if outcome is None:
            return
        try:
            await self._journal.finish(outcome)
        except LeaseLost:
            await self._report_late(outcome)
        except LedgerUnavailable as unavailable:
            log.warning("the result of %s was not kept: %s", call.tool_name, unavailable)

    async def _await_late(self, guarded: Guarded, task: asyncio.Task[Any]) -> None:
        await asyncio.wait({task})
        await self._keep_what_ended(guarded, task)

    async def _report_late(self, outcome: CallOutcome) -> None:
        try:
            settled = await self._journal.settle_late(outcome)
        except LedgerUnavailable as error:
            log.warning("late evidence of %s was not written: %s", outcome.call.tool_name, error)
            return
        how = "settled" if settled else "found already settled"
        log.warning("late evidence: %s of run %r %s", outcome.call.tool_name, self._run_key, how)

    async def _withdraw_quietly(self, call: ToolCall, why: str) -> None:
        try:
            await asyncio.shield(asyncio.ensure_future(self._journal.withdraw(call, why)))
        except (LeaseLost, LedgerUnavailable) as error:
            # It stays recorded as started: in doubt is the careful side to err on.
            log.warning("the intent of %s was not withdrawn: %s", call.tool_name, error)

    # --- names

    @property
    def _attempt(self) -> AttemptState:
        assert self.state is not None, "made by the runner, with its state"
        return self.state

    @property
    def _journal(self) -> Journal:
        return self._attempt.journal

    @property
    def _run_key(self) -> str:
        return self._journal.run.key

    def _position(self, ctx: RunContext[Any], call: ToolCallPart) -> CallPosition | None:
        return position_of(call, ctx.messages, self._attempt.response_seq)

    def _guarded(
        self,
        ctx: RunContext[Any],
        position: CallPosition,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: WrapToolExecuteHandler,
    ) -> Guarded:
        policy = policy_of(tool_def.metadata, self.default_effect)
        return Guarded(ctx, self._tool_call(position, call, args, policy), args, policy, handler)

    def _tool_call(
        self,
        position: CallPosition,
        call: ToolCallPart,
        args: Mapping[str, Any] | None,
        policy: EffectPolicy,
    ) -> ToolCall:
        return ToolCall(
            position=position,
            tool_name=call.tool_name,
            tool_call_id=call.tool_call_id,
            args=_args_text(call, args),
            policy=policy.kind,
            on_doubt=policy.on_doubt if policy.kind is EffectKind.ONCE else None,
            idempotency_key=self._journal.idempotency_key(position),
        )

    def _current(self, guarded: Guarded, transaction: Any) -> Call:
        return Call(
            run_key=self._run_key,
            attempt=self._journal.run.attempt,
            call_id=guarded.call.position.call_id,
            tool_name=guarded.call.tool_name,
            args=guarded.args,
            idempotency_key=guarded.call.idempotency_key,
            transaction=transaction,
        )

    def _replay(self, ctx: RunContext[Any], effect: Effect) -> Any:
        assert effect.result is not None, "a settled effect, or one the model was told of, has one"
        return _counted(ctx, recorded.replay(effect.result))


def _counted(ctx: RunContext[Any], answer: Any) -> Any:
    """Count a call that is answered without being run: pydantic-ai counts the others.

    If it ran, that was in an attempt whose count ended with the checkpoint before it.
    """
    ctx.usage.tool_calls += 1
    return answer


async def _to_its_end(work: Awaitable[None]) -> None:
    """Wait for what cannot be called back, such as a commit, also when cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("stopped, and not committed: %s", error)
        raise


def _done(call: ToolCall, envelope: str) -> CallOutcome:
    return CallOutcome(call, EffectState.DONE, result=envelope)


def _failed(call: ToolCall, envelope: str) -> CallOutcome:
    return CallOutcome(call, EffectState.FAILED, result=envelope)


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _outcome_of(call: ToolCall, task: asyncio.Task[Any]) -> CallOutcome | None:
    """What a tool that ended on its own says; None where in doubt is still the truth."""
    if not task.done() or task.cancelled():
        return None
    error = task.exception()
    if error is not None:
        envelope = recorded.answer_envelope(error)
        return None if envelope is None else _failed(call, envelope)
    try:
        return _done(call, recorded.returned(call.tool_name, task.result()))
    except ResultNotSerializable as unusable:
        log.warning("the result of %s was not kept: %s", call.tool_name, unusable)
        return None


def _as_object(args: str | dict[str, Any]) -> dict[str, Any]:
    """Arguments as a recorded call had them; they were validated when it was made."""
    if not isinstance(args, str):
        return args
    try:
        value = json.loads(args or "{}")
    except ValueError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _args_text(call: ToolCallPart, args: Mapping[str, Any] | None) -> str:
    """The arguments as the model wrote them; validated ones where it wrote none."""
    if isinstance(call.args, str):
        return call.args
    return to_json(call.args or args or {}, fallback=str).decode()
