"""Agent names to agents: what the application registered, and its options.

Owns registrations and deps factories; running an agent is the runner's.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from durably.budgets import NO_LIMIT, Budget
from durably.effects import DEFAULT, EffectPolicy, policy_of
from durably.errors import ConfigError, UnknownAgent
from durably.execution.executor import AttemptOptions
from durably.prices import Price, checked_prices
from durably.retry import RetryPolicy

if TYPE_CHECKING:
    # Imported where it is needed only: commands that look at runs need no agent framework.
    from pydantic_ai import UsageLimits
    from pydantic_ai.agent import AbstractAgent
    from pydantic_ai.messages import UserContent

OnChange = Literal["continue", "suspend", "discard"]

type AnyAgent = AbstractAgent[Any, Any]

type Prompt = str | Sequence[UserContent]
"""What an agent may be asked: text, or text with images, documents and the like."""


DEFAULT_QUEUE = "agents"
DEFAULT_MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a deps factory learns of the run that it makes deps for.

    Attributes:
        args: the JSON object that ``enqueue(args=...)`` was given.
    """

    key: str
    agent: str
    attempt: int
    queue: str
    args: dict[str, Any]
    tags: list[str]
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Registration:
    """One agent and how its runs are executed.

    Attributes:
        deps: the agent's deps, or a factory called as ``deps(run_info)``: sync or async, returning
            deps or a (sync or async) context manager that gives them.
        timeout_seconds: how long one attempt may take; None: no limit.
        usage_limits: pydantic-ai's limits, counted over all attempts of a run.
        on_change: what to do when the agent changed in the middle of a run.
        default_effect: the policy of tools that declare none.
        budget: limits of each of its runs, unless they are given others.
        stream: whether the messages of its runs are shown while they are made, unless a run says.
    """

    name: str
    agent: AnyAgent
    deps: Any = None
    queue: str = DEFAULT_QUEUE
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    timeout_seconds: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    usage_limits: UsageLimits | None = None
    on_change: OnChange = "continue"
    default_effect: EffectPolicy = DEFAULT
    budget: Budget = NO_LIMIT
    stream: bool = False

    @property
    def attempt_options(self) -> AttemptOptions:
        """What the executor needs to know."""
        return AttemptOptions(self.timeout_seconds, self.retry)

    @property
    def output_type(self) -> Any:
        """The agent's output type, as its author wrote it."""
        return self.agent.output_type

    @asynccontextmanager
    async def deps_for(self, run: RunInfo) -> AsyncGenerator[Any]:
        """The deps of one attempt; whatever they hold is let go when the attempt ends."""
        made = self.deps
        if callable(made):
            made = cast("Callable[[RunInfo], Any]", made)(run)
            if inspect.isawaitable(made):
                made = await made
        # Only what a factory makes anew is entered: a deps object is the application's to manage.
        if made is self.deps:
            yield made
        elif isinstance(made, AbstractAsyncContextManager):
            async with cast("AbstractAsyncContextManager[Any]", made) as deps:
                yield deps
        elif isinstance(made, AbstractContextManager):
            with cast("AbstractContextManager[Any]", made) as deps:
                yield deps
        else:
            yield made


class Registry:
    """The registered agents, by name.

    Args:
        prices: of models, by ``provider:model`` or ``model``, before those that pydantic-ai knows.
    """

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        self.prices = checked_prices(prices or {})
        self._registrations: dict[str, Registration] = {}

    def add(self, registration: Registration) -> None:
        """Register an agent.

        Raises:
            ConfigError: the name is taken by another agent, or an option cannot work.
        """
        name = registration.name
        known = self._registrations.get(name)
        if known is not None and known.agent is not registration.agent:
            raise ConfigError(f"Two agents are named {name!r}; give each a name of its own.")
        if registration.max_attempts < 1:
            raise ConfigError(f"max_attempts={registration.max_attempts} of {name!r}: at least 1.")
        timeout = registration.timeout_seconds
        if timeout is not None and timeout <= 0:
            raise ConfigError(f"timeout={timeout:g} of {name!r}: more than 0 seconds, or None.")
        if registration.on_change not in ("continue", "suspend", "discard"):
            raise ConfigError(
                f"on_change={registration.on_change!r} of {name!r}: "
                "use 'continue', 'suspend' or 'discard'."
            )
        self._registrations[name] = registration

    def replace(self, registration: Registration) -> None:
        """Register it in the place of the one of its name, as it is."""
        self._registrations[registration.name] = registration

    def get(self, name: str) -> Registration:
        """The registration of an agent.

        Raises:
            UnknownAgent: nothing is registered under this name.
        """
        try:
            return self._registrations[name]
        except KeyError:
            raise UnknownAgent(name, list(self._registrations)) from None

    def find(self, name: str) -> Registration | None:
        """The registration of an agent, or None."""
        return self._registrations.get(name)

    def all(self) -> Mapping[str, Registration]:
        """Every registration, by name."""
        return dict(self._registrations)


def name_of(agent: object) -> str:
    """The name that an agent is registered under.

    Raises:
        ConfigError: it is no agent, or has no name.
    """
    if isinstance(agent, str):
        return agent
    from pydantic_ai.agent import AbstractAgent

    if not isinstance(agent, AbstractAgent):
        raise ConfigError(f"Expected a pydantic_ai.Agent or a name, got {type(agent).__name__}.")
    named = cast("AnyAgent", agent)
    if not named.name:
        raise ConfigError(
            "The agent has no name, and a run must find its agent again after a restart: "
            "write Agent(..., name='support')."
        )
    return named.name


def undeclared_tools(agent: AnyAgent) -> list[str]:
    """Names of the agent's own function tools that declare no effect policy."""
    return [name for name, policy in _own_tools(agent).items() if not policy.declared]


def queues_of(registration: Registration) -> set[str]:
    """Where its runs wait: its queue, and those that its tools' approvals escalate to."""
    policies = [*_own_tools(registration.agent).values(), registration.default_effect]
    approvals = [policy.approval for policy in policies if policy.approval is not None]
    escalated = {approval.escalate_queue for approval in approvals if approval.escalate_queue}
    return {registration.queue} | escalated


def _own_tools(agent: AnyAgent) -> dict[str, EffectPolicy]:
    from pydantic_ai import Agent
    from pydantic_ai.agent import WrapperAgent
    from pydantic_ai.toolsets import FunctionToolset

    while isinstance(agent, WrapperAgent):
        agent = agent.wrapped
    if not isinstance(agent, Agent):
        return {}
    return {
        name: policy_of(tool.metadata)
        for toolset in agent.toolsets
        if isinstance(toolset, FunctionToolset)
        for name, tool in toolset.tools.items()
    }
