"""Runs a registered agent over a journal: history in, output out.

Owns how a run is continued; the two capabilities do the work inside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from pydantic_ai.capabilities import AbstractCapability, ReinjectSystemPrompt
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, SystemPromptPart
from pydantic_ai.usage import RunUsage

from durably.agents.attempt import AttemptState
from durably.agents.codec import decode_prompt, encode_output
from durably.agents.fingerprint import Fingerprints
from durably.agents.history import message_to_json
from durably.agents.live import merge
from durably.agents.outputs import OutputGuard
from durably.agents.positions import after_responses, count_responses, request_parts
from durably.agents.pricing import Prices
from durably.agents.registry import Registration, Registry, RunInfo
from durably.agents.showing import Showing
from durably.agents.spending import Spending
from durably.agents.stored import load_stored
from durably.agents.together import around
from durably.agents.usage import usage_before, usage_from
from durably.execution.executor import AttemptOptions
from durably.execution.journal import Journal
from durably.execution.outcome import AttemptEnds, Completed
from durably.records import NewRun, RunRecord

type ChildIntake = Callable[[RunRecord, str, Any, str, Mapping[str, Any]], NewRun]
"""Makes the run of a child: its parent, agent name, prompt, default key, and other options."""


class Runner:
    """Performs attempts with the agents of a registry (see `execution.executor.Performer`).

    Args:
        child_intake: the application's rules for the runs that a run starts.
    """

    def __init__(self, registry: Registry, child_intake: ChildIntake) -> None:
        self._registry = registry
        self._child_intake = child_intake
        self._prices = Prices(registry.prices)
        self._fingerprints = defaultdict[str, Fingerprints](Fingerprints)

    def options(self, agent: str) -> AttemptOptions:
        registration = self._registry.find(agent)
        return AttemptOptions() if registration is None else registration.attempt_options

    async def perform(self, journal: Journal) -> Completed:
        registration = self._registry.get(journal.run.agent)
        before, whole = load_stored(journal)
        own, replay = without_last_response(whole)
        history = [*before, *own]
        usage = usage_from(journal.run.usage)
        if replay is not None:
            usage = usage_before(usage, replay)
        state = AttemptState(
            journal=journal,
            on_change=registration.on_change,
            replay=replay,
            known_responses=count_responses(history) + (replay is not None),
            response_seq=journal.last_response,
            registry=self._registry,
            new_child=partial(self._child_intake, journal.run),
            fingerprints=self._fingerprints[registration.name],
            spending=Spending.of(
                journal,
                self._prices,
                registration.budget,
                [m for m in (*own, replay) if isinstance(m, ModelResponse)],
            ),
            default_effect=registration.default_effect,
            saved_requests=len(after_responses(own, count_responses(own))) if replay is None else 0,
            foreign=()
            if journal.length
            else request_parts(after_responses(before, count_responses(before))),
        )
        async with registration.deps_for(_info(journal)) as deps, _shown(journal, registration):
            result = await self._run(registration, state, history, usage, deps)
        if state.waiting:
            raise AttemptEnds(state.suspension())
        return _completed(journal, state, result)

    async def _run(
        self,
        registration: Registration,
        state: AttemptState,
        history: list[ModelMessage],
        usage: RunUsage,
        deps: Any,
    ) -> Any:
        fresh = not state.journal.length
        return await registration.agent.run(
            decode_prompt(state.journal.input.prompt) if fresh else None,
            message_history=history or None,
            deps=deps,
            usage=usage,
            usage_limits=registration.usage_limits,
            capabilities=[
                *_missing_prompt(history),
                *_showing(state),
                *around(registration.agent, state),
                *_output_guard(state, registration),
            ],
        )


def without_last_response(
    messages: Sequence[ModelMessage],
) -> tuple[list[ModelMessage], ModelResponse | None]:
    """A saved history, and apart from it the response that it ends in.

    The run continues from the request before that response, whose answer is then handed back
    instead of asked for: pydantic-ai takes the same way as it did then, whatever the response was.
    """
    if messages and isinstance(messages[-1], ModelResponse):
        return list(messages[:-1]), messages[-1]
    return list(messages), None


def _completed(journal: Journal, state: AttemptState, result: Any) -> Completed:
    tail = state.unsaved(result.all_messages())
    output = encode_output(journal.run.agent, result.output)
    messages = journal.append([(m.kind, message_to_json(m)) for m in tail], state.seen_in(tail))
    spending = state.spending
    usage = spending.usage_json(result.usage)
    return Completed(output, usage, messages, spending.cost_nanousd)


def _missing_prompt(history: Sequence[ModelMessage]) -> list[AbstractCapability[Any]]:
    """The agent's system prompt, for a conversation that was begun without one.

    Pydantic-ai adds it where there is no history yet; that of a thread may be a prompt that no
    model has answered, or the work of an agent that has none.
    """
    requests = [message for message in history if isinstance(message, ModelRequest)]
    prompted = any(isinstance(part, SystemPromptPart) for part in request_parts(requests))
    if not requests or prompted:
        return []
    return [ReinjectSystemPrompt(id="durably_thread_prompt")]


@asynccontextmanager
async def _shown(journal: Journal, registration: Registration) -> AsyncGenerator[None]:
    """Messages are shown while they are made, if the run says so, or else its agent."""
    asked = journal.run.stream
    if not (registration.stream if asked is None else asked):
        yield
        return
    feed = journal.show(merge)
    try:
        yield
    finally:
        await feed.close()


def _showing(state: AttemptState) -> list[AbstractCapability[Any]]:
    feed = state.journal.feed
    return [] if feed is None else [Showing(state=state, feed=feed)]


def _output_guard(state: AttemptState, registration: Registration) -> list[OutputGuard]:
    """Nothing for an output that is a class: there is no function to guard.

    Each capability costs every hook of every step.
    """
    policy, output_type = registration.default_effect, registration.output_type
    if isinstance(output_type, type):
        return []
    return [OutputGuard(state=state, policy=policy, output_type=output_type)]


def _info(journal: Journal) -> RunInfo:
    run = journal.run
    return RunInfo(
        key=run.key,
        agent=run.agent,
        attempt=run.attempt,
        queue=run.queue,
        args=journal.input.args,
        tags=run.tags,
        meta=run.meta,
    )
