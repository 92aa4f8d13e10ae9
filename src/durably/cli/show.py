"""``durably show``: one run as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from durably.allowed import call_decisions, run_actions
from durably.cli.asjson import effect_json, event_json, message_json, parsed, plain, run_json
from durably.cli.conversation import Conversation, Entry
from durably.cli.options import (
    AppOption,
    DebugOption,
    FullOption,
    JsonOption,
    KeyArgument,
    UrlOption,
)
from durably.cli.output import (
    console,
    joined,
    moment_text,
    print_entry,
    print_json,
    print_table,
    styled,
)
from durably.cli.target import Target, work_on
from durably.cli.text import one_line, seconds_text, shorten
from durably.lifecycle import allowed

if TYPE_CHECKING:
    from rich.console import Console

    from durably.app import Durably
    from durably.budgets import Budget, Spent
    from durably.records import Attempt, Cost, Effect, Event, RunInput, RunRecord, StoredMessage

ERROR_CHARS = 2000
CELL_CHARS = 100


class Seen(NamedTuple):
    """Everything that the ledger knows of a run.

    Attributes:
        children: the keys of the runs that its tools started.
    """

    run: RunRecord
    input: RunInput
    messages: list[StoredMessage]
    effects: list[Effect]
    attempts: list[Attempt]
    events: list[Event]
    cost: Cost
    waiting: str
    children: list[str]
    budget: Budget
    spent: Spent


def show(
    key: KeyArgument,
    full: FullOption = False,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show one run as a person reads it.

    Its conversation, tool calls and what became of them, attempts, usage and cost, and the
    commands that can move it.
    """

    async def look(durably: Durably) -> Seen:
        run = await durably.get(key)
        return Seen(
            input=await run.input(),
            messages=await run.messages(),
            effects=await run.effects(),
            attempts=await run.attempts(),
            events=await run.events(deltas=False),
            cost=await run.cost(),
            run=(await run.refresh()).record,
            waiting=run.describe_waiting() if run.record.waiting_on else "",
            children=[child.key for child in await run.children()],
            budget=run.budget,
            spent=run.spent,
        )

    seen = work_on(Target(app, url).find(), look)
    if as_json:
        print_json(_as_json(seen))
        return
    out = console()
    _print_header(seen, out, full)
    _print_conversation(seen, out, full)
    _print_attempts(seen.attempts, out, full)
    _print_usage(seen, out)
    _print_budget(seen, out)
    _print_next(seen, out)


def _as_json(seen: Seen) -> dict[str, Any]:
    return {
        "run": run_json(seen.run),
        "input": {"prompt": parsed(seen.input.prompt), "args": seen.input.args},
        "messages": [message_json(message) for message in seen.messages],
        "effects": [effect_json(effect) for effect in seen.effects],
        "attempts": plain(seen.attempts),
        "events": [event_json(event) for event in seen.events],
        "cost": plain(seen.cost),
        "children": seen.children,
    }


def _print_header(seen: Seen, out: Console, full: bool) -> None:
    run = seen.run
    out.print(joined(styled(f"{run.key}  ", "bold"), styled(run.state)), soft_wrap=True)
    for line in _facts(seen):
        out.print(styled(line, "dim"), soft_wrap=True)
    if run.error:
        error = styled(shorten(run.error, None if full else ERROR_CHARS), "red")
        print_entry(out, Entry("error", error))
    for line in (*run.damage, *seen.input.damage, *(d for e in seen.effects for d in e.damage)):
        out.print(styled(f"damaged: {line}", "red"), soft_wrap=True)
    if seen.waiting:
        out.print(styled(seen.waiting, "bold"), soft_wrap=True)


def _facts(seen: Seen) -> Iterator[str]:
    run = seen.run
    yield (
        f"agent {run.agent}, queue {run.queue}, attempt {run.attempt}, "
        f"{run.failures} of {run.max_attempts} failures, {run.crashes} crashes"
    )
    times = [f"enqueued {moment_text(run.inserted_at)}"]
    if run.worker_id:
        times.append(f"executing since {moment_text(run.attempted_at)} by {run.worker_id}")
    elif run.finished_at:
        took = seconds_text(run.finished_at - run.inserted_at)
        times.append(f"ended {moment_text(run.finished_at)}, after {took}")
    elif allowed("claim", run.state):
        times.append(f"due {moment_text(run.scheduled_at)}")
    if run.cancel_requested_at:
        times.append(f"asked to stop {moment_text(run.cancel_requested_at)}")
    yield ", ".join(times)
    if seen.children:
        yield f"children {', '.join(seen.children)}"
    given: dict[str, Any] = {"thread": run.thread}
    given |= {"tags": ", ".join(run.tags), "args": seen.input.args, "meta": run.meta}
    for name, value in given.items():
        if value:
            yield f"{name} {one_line(str(value), 4 * CELL_CHARS)}"


def _print_conversation(seen: Seen, out: Console, full: bool) -> None:
    _print_title("Conversation", out)
    conversation = Conversation(seen.effects, full=full)
    if not seen.messages:
        print_entry(out, conversation.prompt(seen.input.prompt))
    for message in seen.messages:
        for entry in conversation.entries(message, last=message is seen.messages[-1]):
            print_entry(out, entry)
    if seen.run.output is not None:
        for entry in conversation.output(seen.run.output):
            print_entry(out, entry)


def _print_attempts(attempts: list[Attempt], out: Console, full: bool) -> None:
    if not attempts:
        return
    _print_title("Attempts", out)
    rows = (
        (
            attempt.attempt,
            attempt.worker_id,
            moment_text(attempt.started_at),
            seconds_text(attempt.ended_at - attempt.started_at) if attempt.ended_at else "",
            attempt.outcome or "under way",
            one_line(attempt.error or "", None if full else CELL_CHARS),
        )
        for attempt in attempts
    )
    print_table(("#", "WORKER", "STARTED", "TOOK", "OUTCOME", "ERROR"), rows)
    for attempt in attempts:
        if full and attempt.traceback:
            out.print(styled(f"\nAttempt {attempt.attempt}:\n{attempt.traceback}"), soft_wrap=True)


def _print_usage(seen: Seen, out: Console) -> None:
    counts = [f"{n:,} {name.replace('_', ' ')}" for name, n in _numbers(seen.run.usage)]
    if not counts:
        return
    _print_title("Usage", out)
    responses = sum(message.kind == "response" for message in seen.messages)
    cost = seen.cost
    if responses == cost.unpriced:
        counts.append("cost unknown: no price for this model")
    elif cost.unpriced:
        counts.append(f"cost ${cost.usd:.4f} and {cost.unpriced} responses without a known price")
    else:
        counts.append(f"cost ${cost.usd:.4f}")
    out.print(styled(", ".join(counts), ""), soft_wrap=True)


def _print_budget(seen: Seen, out: Console) -> None:
    from durably.budgets import WHAT, describe

    limits = [(what, seen.budget.limit(what)) for what in WHAT]
    parts = [describe(what, n, seen.spent.of(what)) for what, n in limits if n is not None]
    if not parts:
        return
    _print_title("Budget", out)
    then = {"suspend": "then it waits", "discard": "then it is discarded"}
    out.print(styled(f"{', '.join(parts)}; {then[seen.budget.on_limit]}", ""), soft_wrap=True)


def _numbers(usage: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in usage.items():
        if isinstance(value, int):
            yield name, value


def _print_next(seen: Seen, out: Console) -> None:
    """The commands that can move this run; quoted for a shell."""
    commands = list(_commands(seen))
    if commands:
        _print_title("What can be done", out)
    for command in commands:
        out.print(styled(f"durably {command}", ""), soft_wrap=True)


def _commands(seen: Seen) -> Iterator[str]:
    from shlex import quote

    run, key = seen.run, quote(seen.run.key)
    if run.waiting_on is not None:
        for effect in seen.effects:
            if effect.asked:
                yield from _decisions(f"{key} {quote(effect.call_id)}", run, effect)
        for wait in run.waiting_on.get("waits", []):
            if wait["for"] == "signal":
                name = quote(str(wait.get("name")))
                yield f"signal {key} {name} --payload JSON   # what it waits for"
        if run.waiting_on.get("kind") == "change":
            yield f"retry {key}   # go on with the agent as it is now"
        if run.waiting_on.get("kind") == "budget":
            from durably.budgets import UsedUp

            if (used := UsedUp.read(run.waiting_on)) is not None:
                yield f"{used.command()}   # more altogether"
        yield f"cancel {key}"
    elif "retry" in run_actions(run):
        yield f"retry {key}   # go on where it stopped; its history is kept"


def _decisions(call: str, run: RunRecord, effect: Effect) -> Iterator[str]:
    for decision in call_decisions(run, effect):
        if decision == "answer":
            text = effect.ask == "question"
            yield (
                f"answer {call} TEXT          # or --value JSON"
                if text
                else (f"answer {call} --value JSON  # in its place")
            )
        elif decision in _HOW:
            yield _HOW[decision].format(call)


_HOW = {
    "approve": "approve {}              # let it run; --args JSON: with these arguments",
    "deny": "deny {} --reason TEXT   # the model is told why",
    "done": "resolve {} --done JSON    # it happened, with this result",
    "failed": "resolve {} --failed TEXT  # it failed; the model is told why",
    "again": "resolve {} --again        # it did not happen: run it again",
}
"""The command for each decision; to edit is to approve with other arguments."""


def _print_title(title: str, out: Console) -> None:
    out.print()
    out.print(styled(title.upper(), "bold"))
