"""Finding runs among many, doing the same to many of them, and what the audit trail says of it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably import Budget, Durably, Run, RunState, allowed, searching
from durably.errors import ConfigError, TransitionRefused
from durably.ledger import attempts, runs, workers
from durably.ledger.operations import Operation
from durably.ledger.written import Step
from durably.records import RunRecord
from support.ledgers import new_run

TEXTS = ("refund 100%", "refund_it", "Refund", 'a\\b "quoted"\nüber', "nothing", "%")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("wiped_url")


@pytest.fixture
async def app(url: str) -> AsyncIterator[Durably]:
    async with Durably(url) as app:
        yield app


def prompt_of(text: str) -> str:
    from durably.agents.codec import encode_prompt

    return encode_prompt(text)


def fill(count: int) -> Operation[None]:
    """Runs of every kind, of which some are gone again."""
    chance = random.Random(3)
    yield from workers.register("w", "w", 1, {}, 1e6)
    for number in range(count):
        new = new_run(
            f"{chance.choice(('order', 'ORDER', 'o%r'))}-{number}",
            agent=chance.choice("ab"),
            queue=chance.choice("xy"),
            tags=chance.choice(("[]", '["acme"]', '["acme", "vip"]')),
            thread=chance.choice((None, None, "t")),
            prompt=prompt_of(chance.choice(TEXTS)),
            delay_seconds=chance.choice((0.0, 1e6)),
        )
        run, _ = yield from runs.insert(new)
        if run.state is RunState.AVAILABLE and chance.random() < 0.7:
            claimed = yield from attempts.claim_one("w", run.id)
            assert claimed is not None
            if (how := chance.random()) < 0.2:
                continue
            if how < 0.6:
                yield from attempts.complete(claimed.claim, '"ok"', Step())
            else:
                yield from attempts.discard(claimed.claim, chance.choice(TEXTS), "", Step())
    # Ids have gaps.
    yield from runs.prune(-1.0, "completed", count // 20)


def ascii_lower(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


def matches(run: RunRecord, prompt: Any, given: dict[str, Any]) -> bool:
    """What a search promises, run by run."""
    states = given.get("state")
    states = (states,) if isinstance(states, str) else states
    key, text = ascii_lower(given.get("key") or ""), ascii_lower(given.get("text") or "")
    return (
        (states is None or run.state in states)
        and given.get("agent") in (None, run.agent)
        and given.get("queue") in (None, run.queue)
        and given.get("thread") in (None, run.thread)
        and (given.get("tag") is None or given["tag"] in run.tags)
        and (given.get("since") is None or run.inserted_at >= given["since"])
        and (given.get("until") is None or run.inserted_at < given["until"])
        and key in ascii_lower(run.key)
        and (not text or text in ascii_lower(prompt) or text in ascii_lower(run.error or ""))
    )


async def test_pages_of_a_search_are_all_that_matches_newest_first(
    app: Durably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many small pages, each of which looks at a few runs only, none leaves anything out."""
    await app.ledger.write(fill, 120)
    everything = [run.record for run in await app.runs(limit=1000)]
    prompts = {run.key: await run.prompt() for run in await app.runs(limit=1000)}
    assert len(everything) < everything[0].id, "there are gaps"
    monkeypatch.setattr(searching, "SEARCH_SECONDS", 0.0)
    monkeypatch.setattr(searching, "FIRST_STRETCH", 7)
    chance = random.Random(7)
    times = [run.inserted_at for run in everything]
    empty = short = 0
    for _ in range(60):
        choices: dict[str, list[Any]] = {
            "state": ["available", "discarded", ["completed", "scheduled"], "suspended"],
            "agent": ["a", "b"],
            "queue": ["x"],
            "tag": ["vip", "acme", "nobody"],
            "thread": ["t"],
            "key": ["order", "%", "-1", "_", chance.choice(everything).key],
            "text": ["REFUND", "%", "\\", 'a\\b "quoted"\nüber', "Ü", "_"],
            "since": [chance.choice(times)],
            "until": [chance.choice(times)],
        }
        names = chance.sample(sorted(choices), chance.randrange(4))
        given = {name: chance.choice(choices[name]) for name in names}
        limit = chance.choice((1, 3, 50))
        found: list[RunRecord] = []
        page = await app.search(**given, limit=limit)
        while True:
            ids = [run.record.id for run in page.runs]
            assert ids == sorted(ids, reverse=True) and len(ids) <= limit
            found += [run.record for run in page.runs]
            empty, short = empty + (not ids), short + (len(ids) < limit)
            if page.complete:
                break
            page = await app.search(**given, limit=limit, before=page.next_before)
        expected = [run for run in everything if matches(run, prompts[run.key], given)]
        whole_key = [run for run in expected if run.key == given.get("key")]
        assert sorted(found, key=lambda run: -run.id) == expected, given
        assert found == expected or whole_key, given
        if whole_key:
            first = await app.search(**given, limit=limit)
            assert whole_key[0] in [run.record for run in first.runs], "wherever it stands"
    assert empty > 10 and short > 20, "pages end early"


async def test_time_leads_to_the_runs_of_that_time(app: Durably) -> None:
    """Found by halves: not by looking through all that is older or newer."""
    await app.ledger.write(fill, 50)
    newest = (await app.runs(limit=1))[0].record
    later = newest.inserted_at + timedelta(days=3)
    page = await app.search(since=later)
    assert (page.runs, page.complete) == ([], True)
    page = await app.search(until=newest.inserted_at - timedelta(days=3))
    assert (page.runs, page.complete) == ([], True)


async def test_many_are_cancelled_and_retried_and_it_is_written_down_who_did_it(
    app: Durably,
) -> None:
    await app.ledger.write(fill, 60)
    everything = [run.record for run in await app.runs(limit=1000)]
    going = {run.key for run in everything if not run.state.final}
    done: dict[str, bool] = {}
    before: int | None = None
    while True:
        result = await app.cancel_runs(key="o", by="ann", limit=9, before=before)
        assert len(result.runs) <= 9 and result.done == len(result.runs)
        done |= {outcome.key: outcome.done for outcome in result.runs}
        if (before := result.next_before) is None:
            break
    assert done.keys() == going and all(done.values())
    cancelled = [run async for run in _of(app, state="cancelled")]
    audited = {a.run_key for a in await app.actions(limit=1000) if a.action == "cancel"}
    assert audited == going, "one for each"

    over = next(run.key for run in everything if run.state is RunState.COMPLETED)
    picked = [cancelled[0], over, "nobody's", cancelled[0]]
    result = await app.retry_runs(keys=picked, by="bob")
    assert [(o.key, o.done) for o in result.runs] == [
        (cancelled[0], True),
        (over, False),
        ("nobody's", False),
    ]
    assert "only possible from" in result.runs[1].text and result.runs[1].state == "completed"
    assert result.runs[2].state is None and result.complete
    (retried,) = [a for a in await app.actions(limit=1000) if a.action == "retry"]
    assert (retried.by, retried.run_key) == ("bob", cancelled[0])
    assert [a.action for a in await app.actions(run=cancelled[0])] == ["retry", "cancel"]

    for wrong in (
        {},
        {"keys": ["a"], "agent": "a"},
        {"agent": "a", "limit": 0},
        {"keys": ["k"] * 1001},
    ):
        with pytest.raises(ConfigError):
            await app.cancel_runs(**wrong)


async def _of(app: Durably, **filters: Any) -> AsyncIterator[str]:
    for run in await app.runs(**filters, limit=1000):
        yield run.key


async def test_every_action_is_in_the_audit_trail_and_outlives_its_run(app: Durably) -> None:
    await app.enqueue("a", "hi", key="k", delay=1e6)
    run = await app.get("k")
    await app.pause("agents", by="ann")
    await app.scale("agents", 3, by="ann")
    await app.resume("agents")
    await app.set_budget(Budget(usd="1.5"), tag="acme", by="ben")
    await app.remove_budget(tag="acme", by="ben")
    await run.raise_budget(requests=9, by="cy", note="why not")
    await app.signal("k", "go", {"secret": 1}, signal_id="s1", by="dee")
    await app.signal("k", "go", {"secret": 1}, signal_id="s1", by="dee")  # Sent again: the same.
    with pytest.raises(ConfigError):
        await app.scale("agents", 0, by="ann")
    await run.cancel(by="eve")
    told = [(a.action, a.by, a.run_key, a.subject, a.data) for a in await app.actions()]
    assert told == [
        ("cancel", "eve", "k", "", {}),
        ("signal", "dee", "k", "go", {"signal_id": "s1"}),
        ("raise_budget", "cy", "k", "", {"limits": {"requests": 9}, "note": "why not"}),
        ("remove_budget", "ben", None, "tag acme", {}),
        (
            "set_budget",
            "ben",
            None,
            "tag acme",
            {"limits": {"usd": "1.5", "on_limit": "suspend"}},
        ),
        ("resume", "operator", None, "agents", {}),
        ("scale", "ann", None, "agents", {"limit": 3}),
        ("pause", "ann", None, "agents", {}),
    ]
    newest = (await app.actions(limit=3))[-1]
    assert [a.action for a in await app.actions(before=newest.id, limit=1)] == ["remove_budget"]

    # Pruned by the same time, but not while its run is there.
    assert [n async for n in app.prune(older_than=1e6, by="flo")] == []
    assert len(await app.actions()) == len(told), "neither is old enough"
    await app.retry_runs(keys=["k"])
    assert [n async for n in app.prune(older_than=-60)] == []
    left = [a.action for a in await app.actions()]
    assert left == ["retry", "cancel", "signal", "raise_budget"]
    await (await app.get("k")).cancel()
    assert [n async for n in app.prune(older_than=-60, state="cancelled", by="flo")] == [1]
    pruned, *rest = await app.actions()
    assert (pruned.action, pruned.by, pruned.data["state"]) == ("prune", "flo", "cancelled")
    assert len(await app.actions(run="k")) == len(rest) == 5, "the run is gone, and they are not"


async def test_what_may_be_done_is_what_is_not_refused(app: Durably) -> None:
    """For every state: what is offered works, what is not is refused."""
    await app.ledger.write(fill, 120)
    tried: dict[tuple[RunState, str], bool] = {}
    for run in await app.runs(limit=1000):
        for action in allowed.RUN_ACTIONS:
            if run.record.thread is not None or (run.state, action) in tried:
                continue
            state, offered = run.state, action in run.actions_allowed
            tried[state, action] = await done(app, run, action)
            assert tried[state, action] == offered, (state, action)
            break
    states = {state for state, _ in tried}
    assert {"completed", "discarded", "available", "scheduled", "executing"} == states
    assert len(tried) == len(states) * len(allowed.RUN_ACTIONS)
    (stopping,) = [r for r in await app.runs(state="executing") if r.record.cancel_requested_at]
    assert stopping.actions_allowed == ("raise_budget", "signal"), "it is being stopped already"


async def done(app: Durably, run: Run[Any], action: str) -> bool:
    """Try it; False if it is refused."""
    try:
        match action:
            case "cancel":
                await run.cancel()
            case "retry":
                await run.retry()
            case "raise_budget":
                await run.raise_budget(requests=1)
            case _:
                await app.signal(run.key, "go")
    except TransitionRefused:
        return False
    return True


async def test_ready_says_what_is_missing(app: Durably, tmp_path: Path) -> None:
    nowhere = await Durably(f"sqlite:///{tmp_path}/none.db").ready()
    assert [(c.name, c.ok) for c in nowhere.checks] == [("database", True), ("schema", False)]
    assert not (tmp_path / "none.db").exists(), "it makes none"
    (tmp_path / "broken.db").write_bytes(b"no database at all, " * 100)
    broken = await Durably(f"sqlite:///{tmp_path}/broken.db").ready()
    assert [(c.name, c.ok) for c in broken.checks] == [("database", False)]
    ready = await app.ready()
    assert [c.ok for c in ready.checks] == [True, True, False]
    assert ready.checks[-1].text == "No worker is alive: start one."
    await app.ledger.write(workers.register, "w", "w", 1, {}, 60.0)
    assert (await app.ready()).ready
