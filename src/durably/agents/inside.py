"""A tool's own code inside its call: steps under their policies, waits, and runs of other agents.

Owns how they are known when the tool runs again, and how a wait leaves the tool; the public
functions are `execution.inside`'s, what is recorded the ledger's.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from pydantic_ai import RunContext
from pydantic_core import to_json

from durably.agents import recorded
from durably.agents.attempt import AttemptState
from durably.agents.calls import on_doubt
from durably.agents.codec import decode_output
from durably.agents.guarded import Guarded
from durably.agents.registry import name_of
from durably.agents.stepped import GuardedStep, run_step
from durably.agents.usage import usage_from
from durably.effects import METADATA_KEY, EffectKind, EffectPolicy, as_policy
from durably.errors import ChildFailed, ConfigError
from durably.execution.contained import in_thread
from durably.execution.outcome import Waits
from durably.ledger.columns import timestamp
from durably.ledger.waits import Wait
from durably.ledger.written import ToolCall
from durably.lifecycle import EffectState, RunState
from durably.records import Effect

_STEP = EffectPolicy(EffectKind.ONCE, declared=False)


class InsideCall:
    """What one call of a tool lets its code do (see `execution.inside.Inside`).

    Attributes:
        open_waits: what the code came to wait for in this attempt.
        asked: steps that people are asked about, by call id.
    """

    def __init__(self, guarded: Guarded) -> None:
        # Not the call itself, which keeps this: they would hold each other, and all that the call
        # has seen of its run, until the garbage collector comes by.
        self._state, self._ctx = guarded.state, guarded.ctx
        self._call, self._policy = guarded.call, guarded.policy
        self._names: Counter[str] = Counter()
        self._under_way: set[asyncio.Task[Any]] = set()
        self.open_waits: dict[str, Effect] = {}
        self.asked: set[str] = set()

    # --- steps

    async def step(
        self,
        name: str,
        work: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        effect: Mapping[str, Any] | None,
    ) -> Any:
        self._names[name] += 1
        if self._names[name] > 1:
            raise ConfigError(
                f"Step {name!r} is there already in this call of {self._tool!r}: a step is known "
                "by its name when the tool runs again, so give each another."
            )
        policy = _step_policy(effect)
        shown = to_json(kwargs if not args else {"args": args, **kwargs}, fallback=str).decode()
        described = dict(kwargs) if not args else {"args": list(args), **kwargs}
        step = GuardedStep(
            state=self._state,
            ctx=self._ctx,
            call=self._tool_call(name, shown, policy),
            args=described,
            policy=policy,
            handler=_handler(work, args, kwargs),
            inside=self,
            may_wait=self._policy.kind.runs_again,
        )
        return await self._task(run_step(step))

    def ask(self, call_id: str) -> Waits:
        """The wait for a person who is asked about a step."""
        self.asked.add(call_id)
        return Waits(call_id)

    # --- waits

    async def sleep(self, name: str | None, seconds: float | None, until: datetime | None) -> None:
        at = None if until is None else timestamp(until)
        wait = Wait("timer", within_seconds=seconds, until=at, request=json.dumps({"until": at}))
        recorded.replay(await self._task(self._wait(self._named(name or "sleep"), wait)))

    async def wait_for_signal(self, name: str, seconds: float | None) -> Any:
        request = {"signal": name} | ({} if seconds is None else {"timeout": seconds})
        wait = Wait("signal", name, within_seconds=seconds, request=json.dumps(request))
        return recorded.replay(await self._task(self._wait(self._named(f"signal {name}"), wait)))

    async def _wait(self, name: str, wait: Wait) -> str:
        """The recorded outcome of a wait.

        Raises:
            Waits: it is not over.
        """
        self._check_may_wait()
        shown = to_json({"until": wait.until, "seconds": wait.within_seconds}).decode()
        call = self._tool_call(name, shown, EffectPolicy(EffectKind.READ))
        return self._over(await self._state.journal.effects.wait(call, wait))

    # --- other agents

    async def run_child(self, agent: Any, prompt: Any, options: Mapping[str, Any]) -> Any:
        return await self._task(self._run_child(agent, prompt, options))

    async def _run_child(self, agent: Any, prompt: Any, options: Mapping[str, Any]) -> Any:
        self._check_may_wait()
        agent_name, state = name_of(agent), self._state
        registration = state.registry.get(agent_name)
        name = self._named(f"run {options['key'] or agent_name}")
        shown = to_json({"prompt": prompt, "args": options["args"]}, fallback=str).decode()
        call = self._tool_call(name, shown, EffectPolicy(EffectKind.READ))
        new = state.new_child(agent_name, prompt, call.idempotency_key, options)
        wait = await self._state.journal.effects.start_child(call, new)
        said = json.loads(self._over(wait))["child"]
        adopt_children(state, self._ctx, [wait])
        if said["state"] != RunState.COMPLETED:
            raise ChildFailed(said["key"], said["state"], said.get("error"))
        return decode_output(json.dumps(said["output"]), registration.output_type)

    # --- inside

    async def finish(self) -> None:
        """Wait for what the tool began and did not wait for: a suspended call runs nothing."""
        while self._under_way:
            await asyncio.wait(set(self._under_way))

    @property
    def _tool(self) -> str:
        return self._call.tool_name

    def _task[T](self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        # A task of its own: what it makes the current call is nobody else's, and it can be waited
        # for if the tool itself does not.
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    def _named(self, name: str) -> str:
        """A wait's name: its own, and its number from the second of that name on."""
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name} #{self._names[name]}"

    def _check_may_wait(self) -> None:
        kind = self._policy.kind
        if not kind.runs_again:
            raise ConfigError(
                f"Tool {self._tool!r} waits, and is declared {kind}: declare it "
                "metadata=effects.WAITS. It runs again from its start when the run goes on, so "
                "what it does to the world belongs in `await durably.step(name, ...)`."
            )

    def _over(self, effect: Effect) -> str:
        if effect.state is EffectState.AWAITING:
            self.open_waits[effect.call_id] = effect
            raise Waits(effect.call_id)
        assert effect.result is not None, "a wait that is over says how"
        return effect.result

    def _tool_call(self, name: str, args: str, policy: EffectPolicy) -> ToolCall:
        call = self._call
        position = call.position._replace(step=name)
        return ToolCall(
            position=position,
            tool_name=call.tool_name,
            tool_call_id=call.tool_call_id,
            args=args,
            policy=policy.kind,
            on_doubt=on_doubt(policy),
            idempotency_key=self._state.journal.idempotency_key(position),
        )


async def unless_it_waits(guarded: Guarded, work: Coroutine[Any, Any, Any]) -> Any:
    """Run a tool that may wait inside.

    Raises:
        CallDeferred, AttemptEnds: it waits; see `Guarded.defer`.
    """
    try:
        return await work
    except BaseException as error:
        code = guarded.code
        if not _only_waits(error) or not isinstance(code, InsideCall):
            raise
    call_id, state = guarded.call.tool_call_id, guarded.state
    if code.asked:
        state.asked[call_id] = sorted(code.asked)
    if code.open_waits:
        state.waits[call_id] = [_described(effect) for effect in code.open_waits.values()]
    raise guarded.defer()


def adopt_children(state: AttemptState, ctx: RunContext[Any], effects: Sequence[Effect]) -> None:
    """Count what the children of a call used, and cost, to the run of their parent.

    Args:
        effects: what is recorded inside the call; of its waits for children, those that are over
            and that started theirs.
    """
    for effect in effects:
        if effect.ask != "child" or not effect.state.settled or not effect.request.get("started"):
            continue
        assert effect.result is not None, "a wait that is over says how"
        said = json.loads(effect.result)["child"]
        usage = usage_from(said["usage"])
        ctx.usage.incr(usage)
        state.spending.adopt(usage, said["cost_nanousd"])


def _only_waits(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_only_waits(e) for e in cast("BaseExceptionGroup[Any]", error).exceptions)
    return isinstance(error, Waits)


def _described(wait: Effect) -> dict[str, Any]:
    """A wait as people, and `describe_waiting`, read it in the run's ``waiting_on``."""
    described: dict[str, Any] = {"call_id": wait.call_id, "for": wait.ask}
    if wait.awaits is not None:
        described["name"] = wait.awaits
    if wait.expires_at is not None:
        described["until"] = wait.expires_at.isoformat()
    return described


def _step_policy(effect: Mapping[str, Any] | None) -> EffectPolicy:
    if effect is None:
        return _STEP
    if METADATA_KEY not in effect:
        raise ConfigError(
            "A step's effect is effects.READ, IDEMPOTENT, TRANSACTIONAL or once(...)."
        )
    policy = as_policy(effect)
    if policy.kind is EffectKind.WAITS:
        raise ConfigError("A step does not wait itself: give it another effect than WAITS.")
    return policy


def _handler(
    work: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]:
    async def handler(_: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(work):
            return await work(*args, **kwargs)
        result = await in_thread(work, *args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return handler
