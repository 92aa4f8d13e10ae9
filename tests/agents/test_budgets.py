"""Budgets: what runs may spend, alone and together, over attempts and crashes, and what then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

import durably
from durably import (
    Budget,
    ConfigError,
    Durably,
    Price,
    Run,
    RunState,
    TransitionRefused,
    effects,
)
from durably.budgets import Spent
from durably.ledger import budgets
from support.scripted import NOW, call

# 100 tokens in and 10 out cost $0.001: 1,000,000 billionths.
PRICES = {"function:priced": Price(input=8, output=20)}
RESPONSE_NANOUSD = 1_000_000
ONE = Spent(1, 110, 0, RESPONSE_NANOUSD)


class Payer:
    """An agent each of whose responses costs the same; counts requests and what its tools did."""

    def __init__(self, *steps: str | list[ToolCallPart], name: str = "priced") -> None:
        self.steps = steps or ([call("look")], [call("look")], "done")
        self.requests = 0
        self.looked = 0
        self.usage = RequestUsage(input_tokens=100, output_tokens=10)
        self.break_once: set[int] = set()
        self.asking: Any = None
        self.model: Model = FunctionModel(self._answer, model_name=name)

    def agent(self, name: str = "payer") -> Agent[None, str]:
        agent = Agent(self.model, name=name)

        @agent.tool_plain(metadata=effects.READ)
        async def look() -> str:
            self.looked += 1
            if self.looked in self.break_once:
                raise RuntimeError("broken")
            return "seen"

        return agent

    async def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.requests += 1
        if self.asking is not None:
            await self.asking()
        done = sum(isinstance(message, ModelResponse) for message in messages)
        step = self.steps[done % len(self.steps)]  # From the start in each run of a thread.
        parts = [TextPart(step)] if isinstance(step, str) else step
        return ModelResponse(parts=parts, usage=self.usage)


@pytest.fixture
async def app(app_url: str) -> AsyncIterator[Durably]:
    async with Durably(app_url, prices=PRICES) as app:
        yield app


def payer(app: Durably, *steps: Any, budget: Budget | None = None, **options: Any) -> Payer:
    made = Payer(*steps)
    app.register(made.agent(), budget=budget, retry=NOW, **options)
    return made


async def started(app: Durably, key: str = "r1", **options: Any) -> Run[Any]:
    run = await app.enqueue("payer", "go", key=key, **options)
    await app.drain()
    return await run.refresh()


async def in_thread(app: Durably, key: str, thread: str) -> Run[Any]:
    return await started(app, key, thread=thread)


async def completed(app: Durably, run: Run[Any]) -> None:
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED, run.record


# --- a run's own


LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "requests": ({"requests": 1}, {"requests": 9}),
    "tokens": ({"tokens": 110}, {"tokens": 10_000}),
    "usd": ({"usd": "0.001"}, {"usd": 1}),
}


@pytest.mark.parametrize("what", LIMITS)
async def test_run_waits_at_its_limit_and_goes_on_once_it_is_raised(
    app: Durably, what: str
) -> None:
    limits, more = LIMITS[what]
    payer_ = payer(app)
    run = await started(app, budget=Budget(**limits))
    assert (run.state, payer_.requests) == (RunState.SUSPENDED, 1)
    assert run.spent == Spent(1, 110, 0, RESPONSE_NANOUSD)
    (item,) = await app.inbox(kind="budget")
    assert (item.run_key, item.kind, item.effect) == ("r1", "budget", None)
    assert (item.waiting["scope"], item.waiting["what"]) == ("run", what)
    assert item.since <= (await app.inbox())[0].since
    assert f"durably budgets raise r1 {what}=..." in run.describe_waiting()
    await run.raise_budget(**more, by="ann", note="go on")
    assert run.state is RunState.AVAILABLE
    await completed(app, run)
    assert payer_.requests == 3
    assert run.spent == Spent(3, 330, 2, 3 * RESPONSE_NANOUSD)
    (decision,) = await run.decisions()
    assert (decision.decision, decision.by, decision.note) == ("raised", "ann", "go on")
    assert (decision.position, decision.call_id) == (None, "")
    assert await app.inbox() == []


async def test_tool_calls_beyond_the_limit_do_not_run(app: Durably) -> None:
    both = [call("look", "c1"), call("look", "c2")]
    payer_ = payer(app, [call("look")], both, "done")
    run = await started(app, budget=Budget(tool_calls=2))
    assert (run.state, payer_.looked, payer_.requests) == (RunState.SUSPENDED, 1, 2)
    assert "1 of 2 tool calls, and 2 more wanted" in run.describe_waiting()
    with pytest.raises(TransitionRefused, match="higher limit only"):
        await run.raise_budget(tool_calls=2)
    await run.raise_budget(tool_calls=3)
    await completed(app, run)
    assert (payer_.looked, payer_.requests) == (3, 3), "the saved response is not asked for again"


async def test_run_is_discarded_at_its_limit_where_that_is_declared(app: Durably) -> None:
    payer_ = payer(app, budget=Budget(requests=1, on_limit="discard"))
    run = await started(app)
    assert (run.state, payer_.requests) == (RunState.DISCARDED, 1)
    assert run.record.error == "It would spend more than its budget allows: 1 of 1 requests."


async def test_limits_of_a_run_win_over_those_of_its_agent(app: Durably) -> None:
    payer_ = payer(app, budget=Budget(requests=1, tokens=220, on_limit="discard"))
    run = await started(app, budget=Budget(requests=50))
    assert payer_.requests == 2
    assert run.state is RunState.SUSPENDED, "and what happens at a limit is the run's"
    assert run.record.waiting_on is not None
    assert run.record.waiting_on["what"] == "tokens", "the agent's, which the run has not"


async def test_what_failed_attempts_spent_counts(app: Durably) -> None:
    payer_ = payer(app)
    payer_.break_once = {1, 2}
    run = await started(app, budget=Budget(requests=2))
    assert (run.state, run.record.failures) == (RunState.SUSPENDED, 2)
    assert (payer_.requests, run.spent) == (2, Spent(2, 220, 1, 2 * RESPONSE_NANOUSD))
    await run.raise_budget(requests=3)
    await completed(app, run)
    assert run.spent == Spent(3, 330, 2, 3 * RESPONSE_NANOUSD)


async def test_budget_that_is_raised_meanwhile_does_not_let_the_run_sleep(app: Durably) -> None:
    payer_ = payer(app)

    async def raise_it() -> None:
        payer_.asking = None
        await (await app.get("r1")).raise_budget(requests=9)

    payer_.asking = raise_it
    run = await started(app, budget=Budget(requests=1))
    assert run.state is RunState.COMPLETED
    assert payer_.requests == 3


async def test_waiting_run_can_be_ended(app: Durably) -> None:
    payer(app)
    run = await started(app, budget=Budget(requests=1))
    await run.cancel()
    assert await app.inbox() == []
    with pytest.raises(TransitionRefused, match="is cancelled; retry it first"):
        await run.raise_budget(requests=2)


async def test_retry_looks_at_the_budget_again(app: Durably, app_url: str) -> None:
    payer_ = payer(app, budget=Budget(requests=1))
    run = await started(app)
    await run.retry()
    await app.drain()
    assert (await run.refresh()).state is RunState.SUSPENDED
    assert payer_.requests == 1
    async with Durably(app_url) as deployed:
        deployed.register(payer_.agent(), budget=Budget(requests=3))
        await (await deployed.get("r1")).retry()
        await deployed.drain()
    assert (await run.refresh()).state is RunState.COMPLETED


@pytest.mark.parametrize("limits", [{}, {"requests": None}])
async def test_raising_nothing_is_refused(app: Durably, limits: dict[str, Any]) -> None:
    payer(app)
    run = await started(app)
    with pytest.raises(ConfigError, match="raise_budget\\(\\) takes"):
        await run.raise_budget(**limits)


# --- shared ones


async def test_runs_with_a_tag_share_a_budget(app: Durably) -> None:
    payer_ = payer(app)
    await app.set_budget(Budget(usd=0.004), tag="tenant:acme")
    first = await started(app, "a", tags=["tenant:acme", "x"])
    assert first.state is RunState.COMPLETED
    other = await started(app, "b", tags=["tenant:other"])
    assert other.state is RunState.COMPLETED
    second = await started(app, "c", tags=["y", "tenant:acme"])
    assert (second.state, second.spent) == (RunState.SUSPENDED, ONE)
    (shared,) = await app.budgets()
    assert shared.spent == Spent(4, 440, 2, 4 * RESPONSE_NANOUSD)
    assert second.record.waiting_on == {
        "kind": "budget",
        "scope": "tag",
        "name": "tenant:acme",
        "what": "usd",
        "limit": "0.004",
        "spent": "0.004",
    }
    await app.set_budget(Budget(usd=1), tag="tenant:acme")
    assert (await second.refresh()).state is RunState.AVAILABLE, "woken by whoever raised it"
    await completed(app, second)
    (shared,) = await app.budgets()
    assert shared.spent == Spent(6, 660, 4, 6 * RESPONSE_NANOUSD), "and nothing is counted twice"
    assert payer_.requests == 9


async def test_runs_of_a_thread_share_a_budget(app: Durably) -> None:
    payer(app)
    await app.set_budget(Budget(requests=4), thread="customer-7")
    assert (await in_thread(app, "a", "customer-7")).state is RunState.COMPLETED
    second = await in_thread(app, "b", "customer-7")
    assert second.state is RunState.SUSPENDED
    assert "budget of thread 'customer-7'" in second.describe_waiting()
    await app.remove_budget(thread="customer-7")
    await completed(app, second)
    assert await app.budgets() == []


async def test_attempts_that_fail_count_once_in_a_shared_budget(app: Durably) -> None:
    payer_ = payer(app)
    payer_.break_once = {1, 3}
    await app.set_budget(Budget(requests=100), tag="t")
    run = await started(app, tags=["t", "t"])
    assert (run.state, run.record.failures) == (RunState.COMPLETED, 2)
    (shared,) = await app.budgets()
    assert shared.spent == run.spent == Spent(3, 330, 2, 3 * RESPONSE_NANOUSD)


async def test_tool_calls_are_shared_too(app: Durably) -> None:
    payer_ = payer(app)
    await app.set_budget(Budget(tool_calls=3, on_limit="discard"), tag="t")
    await started(app, "a", tags=["t"])
    second = await started(app, "b", tags=["t"])
    assert (second.state, payer_.looked) == (RunState.DISCARDED, 3)
    assert second.record.error == (
        "It would spend more than the budget of tag 't' allows: "
        "3 of 3 tool calls, and 1 more wanted."
    )


async def test_worker_wakes_what_nobody_lived_to_wake(app: Durably) -> None:
    payer(app)
    await app.set_budget(Budget(requests=1), tag="t")
    waiting = [await started(app, key, tags=["t"]) for key in ("a", "b")]
    assert {run.state for run in waiting} == {RunState.SUSPENDED}
    # As a process does that dies before it wakes anybody.
    await app.ledger.write(budgets.set_shared, "tag", "t", Budget(requests=100))
    async with app.worker():
        for run in waiting:
            assert await run.result(timeout=120) == "done"


async def test_runs_at_once_lose_nothing_of_the_sum(app: Durably) -> None:
    payer_ = payer(app)
    await app.set_budget(Budget(usd=10), tag="t")
    await app.set_budget(Budget(requests=1000), tag="u")
    tags = [["u", "t"], ["t"], []]
    found = [await app.enqueue("payer", "go", key=f"r{n}", tags=tags[n % 3]) for n in range(12)]
    await app.drain({"agents": 12})
    for run in found:
        await completed(app, run)
    spent = {budget.name: budget.spent for budget in await app.budgets()}
    assert spent == {"t": _times(8 * 3), "u": _times(4 * 3)}
    assert payer_.requests == 36


def _times(requests: int) -> Spent:
    calls = requests * 2 // 3
    return Spent(requests, requests * 110, calls, requests * RESPONSE_NANOUSD)


async def test_run_without_a_shared_budget_pays_nothing_for_it(
    app: Durably, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer(app)
    read: list[Any] = []
    monkeypatch.setattr(budgets, "list_shared_of", read.append)
    assert (await started(app)).state is RunState.COMPLETED
    assert read == []


@pytest.mark.parametrize("whose", [{}, {"thread": "a", "tag": "b"}, {"tag": ""}])
async def test_budget_belongs_to_one_thread_or_tag(app: Durably, whose: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="one of them"):
        await app.set_budget(Budget(usd=1), **whose)


async def test_budget_that_limits_nothing_is_refused(app: Durably) -> None:
    with pytest.raises(ConfigError, match="limits nothing"):
        await app.set_budget(Budget(), tag="t")
    with pytest.raises(ConfigError, match="There is no budget of tag 't'"):
        await app.remove_budget(tag="t")


# --- prices


async def discarded(app: Durably, run: Run[Any]) -> str:
    await app.drain()
    assert (await run.refresh()).state is RunState.DISCARDED
    return run.record.error or ""


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
async def test_model_without_a_price_is_not_asked_under_a_dollar_budget(
    app: Durably, shared: bool
) -> None:
    model = Payer(name="mystery")
    app.register(model.agent())
    if shared:
        await app.set_budget(Budget(usd=1), tag="t")
    run = await started(app, tags=["t"], budget=None if shared else Budget(usd=1))
    error = await discarded(app, run)
    assert "nobody knows what model 'function:mystery' costs" in error
    assert "Durably(prices={'function:mystery': durably.Price(input=..., output=...)})" in error
    assert model.requests == 0


async def test_model_without_a_price_is_asked_where_no_budget_is_in_dollars(app: Durably) -> None:
    app.register(Payer(name="mystery").agent())
    run = await started(app, budget=Budget(tokens=1000))
    assert run.state is RunState.COMPLETED
    assert run.record.cost_nanousd == 0


async def test_every_model_that_may_answer_needs_a_price(app: Durably) -> None:
    model = Payer()
    model.model = FallbackModel(model.model, Payer(name="mystery").model)
    app.register(model.agent())
    run = await started(app, budget=Budget(usd=1))
    assert "'function:mystery'" in await discarded(app, run)
    assert model.requests == 0


async def test_response_without_a_price_ends_the_run_before_its_tools(
    app: Durably, app_url: str
) -> None:
    """Here the model answers under another name than it was asked under, as some routers do."""
    payer_ = payer(app)
    payer_.model = Renaming(payer_.model, "mystery-2")
    app.register(payer_.agent("renamed"))
    run = await app.enqueue("renamed", "go", key="r1", budget=Budget(usd=1))
    assert "costs" in await discarded(app, run)
    assert (payer_.requests, payer_.looked) == (1, 0)
    # Nothing is lost: once somebody says the price, it goes on with the response that is paid.
    prices = {"mystery-2": Price(input=8, output=20), **PRICES}
    async with Durably(app_url, prices=prices) as priced:
        priced.register(payer_.agent("renamed"))
        again = await (await priced.get("r1")).retry()
        await priced.drain()
        assert (await again.refresh()).state is RunState.COMPLETED, again.record.error
        assert again.record.cost_nanousd == 3 * RESPONSE_NANOUSD, "also what had no price then"
    assert payer_.requests == 3


async def test_response_that_nobody_measured_has_no_price(app: Durably) -> None:
    payer_ = payer(app)
    payer_.usage = RequestUsage(cache_read_tokens=1)
    payer_.model = Renaming(payer_.model, "priced", RequestUsage())
    app.register(payer_.agent("unmeasured"))
    run = await app.enqueue("unmeasured", "go", budget=Budget(usd=1))
    assert "costs" in await discarded(app, run)
    assert payer_.looked == 0


async def test_price_of_a_model_holds_under_the_longer_name_that_it_answers_with(
    app: Durably,
) -> None:
    payer_ = Payer("done")
    payer_.model = Renaming(payer_.model, "priced-2026-01-01", system="function")
    app.register(payer_.agent())
    run = await started(app, budget=Budget(usd=1))
    assert run.record.cost_nanousd == RESPONSE_NANOUSD


async def test_cost_of_a_run_knows_the_applications_prices(app: Durably) -> None:
    payer(app)
    run = await started(app)
    cost = await run.cost()
    assert (str(cost.usd), cost.unpriced) == ("0.003", 0)


async def test_dollars_run_out_between_two_responses(app: Durably) -> None:
    """The response that goes over a limit is kept, and paid; the next is not asked for."""
    payer_ = payer(app)
    run = await started(app, budget=Budget(usd="0.0015"))
    assert (run.state, payer_.requests, payer_.looked) == (RunState.SUSPENDED, 2, 2)
    assert "$0.002 of $0.0015" in run.describe_waiting()
    assert run.spent == Spent(2, 220, 1, 2 * RESPONSE_NANOUSD), "and its call with the next write"


async def test_many_wait_and_all_go_on(app: Durably) -> None:
    payer(app)
    await app.set_budget(Budget(requests=0), tag="t")
    found = [await app.enqueue("payer", "go", tags=["t"]) for _ in range(5)]
    await app.drain()
    assert len(await app.inbox(kind="budget", tag="t")) == 5
    assert await app.inbox(kind="budget", tag="other") == []
    await app.set_budget(Budget(requests=100), tag="t")
    await app.drain()
    assert {(await run.refresh()).state for run in found} == {RunState.COMPLETED}


class Renaming(FunctionModel):
    """Answers in the name of another model."""

    def __init__(
        self,
        inner: Model,
        name: str,
        usage: RequestUsage | None = None,
        system: str | None = None,
    ) -> None:
        assert isinstance(inner, FunctionModel)
        super().__init__(inner.function, model_name=inner.model_name)
        self._as, self._measured, self._provider = name, usage, system

    async def request(self, *args: Any, **kwargs: Any) -> ModelResponse:
        response = await super().request(*args, **kwargs)
        response.model_name = self._as
        response.provider_name = self._provider or "elsewhere"
        if self._measured is not None:
            response.usage = self._measured
        return response


async def test_waiting_costs_no_task(app: Durably) -> None:
    payer(app)
    before = len(asyncio.all_tasks())
    run = await started(app, budget=Budget(requests=0))
    assert run.state is RunState.SUSPENDED
    assert len(asyncio.all_tasks()) == before


async def test_children_count_once_where_budgets_are_shared_and_to_their_parent(
    app: Durably,
) -> None:
    """A run's own budget holds its family; a tenant's counts each run for itself."""
    payer(app)
    asked: list[str] = []

    async def ask() -> str:
        asked.append("go")
        found = await durably.run_child("payer", "go", key="child")
        if len(asked) == 2:
            raise durably.NotDone("once more")
        return found

    boss = Payer([call("ask")], "done")
    agent = Agent(boss.model, name="boss")
    agent.tool_plain(ask, name="ask", metadata=effects.WAITS)
    app.register(agent, retry=NOW)
    await app.set_budget(Budget(requests=100, usd=1), tag="t")
    run = await app.enqueue(agent, "go", key="r1", tags=["t"])
    await app.drain()
    await completed(app, run)
    (child,) = await run.children()
    assert child.spent == Spent(3, 330, 2, 3 * RESPONSE_NANOUSD)
    assert run.spent == Spent(5, 550, 3, 5 * RESPONSE_NANOUSD)
    (shared,) = await app.budgets()
    assert shared.spent == Spent(5, 550, 3, 5 * RESPONSE_NANOUSD), "not eight"


async def test_what_a_child_spends_is_held_against_its_parents_own_budget(app: Durably) -> None:
    payer(app)

    async def ask() -> str:
        return await durably.run_child("payer", "go", key="child")

    boss = Payer([call("ask")], "done")
    agent = Agent(boss.model, name="boss")
    agent.tool_plain(ask, name="ask", metadata=effects.WAITS)
    app.register(agent, retry=NOW, budget=Budget(usd="0.004"))
    run = await app.enqueue(agent, "go", key="r1")
    await app.drain()
    assert (await run.refresh()).state is RunState.SUSPENDED
    assert run.record.waiting_on is not None
    assert (run.record.waiting_on["what"], run.record.waiting_on["spent"]) == ("usd", "0.004")
    await run.raise_budget(usd=1)
    await completed(app, run)
    assert run.spent.requests == 5
