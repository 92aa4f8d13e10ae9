"""What there is: ``durably runs`` and ``inbox``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from durably.cli.asjson import effect_json, plain, run_json
from durably.cli.options import AppOption, DebugOption, JsonOption, UrlOption
from durably.cli.output import moment_text, print_json, print_table, say
from durably.cli.target import Target, work_on
from durably.cli.text import one_line

if TYPE_CHECKING:
    from durably.app import Durably
    from durably.records import Effect, InboxItem, RunRecord

ERROR_CHARS = 60
ARGS_CHARS = 60


def runs(
    state: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only this queue's.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only runs with this tag.")] = None,
    thread: Annotated[str | None, typer.Option(help="Only this thread's.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    before: Annotated[
        int | None, typer.Option(help="Only runs older than the one with this id: the next page.")
    ] = None,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List runs, newest first."""

    async def listed(durably: Durably) -> list[RunRecord]:
        found = await durably.runs(
            state=state,
            agent=agent,
            queue=queue,
            tag=tag,
            thread=thread,
            before=before,
            limit=limit,
        )
        return [run.record for run in found]

    found = work_on(Target(app, url).find(), listed)
    if as_json:
        print_json([run_json(record) for record in found])
        return
    if not found:
        say("No runs.")
        return
    columns = ("ID", "KEY", "AGENT", "STATE", "QUEUE", "ATTEMPTS", "FAILED", "ENQUEUED", "ERROR")
    print_table(columns, map(_run_row, found))
    if len(found) == limit:
        say(f"\nOlder ones: --before {found[-1].id}")


def inbox(
    agent: Annotated[str | None, typer.Option(help="Only of this agent.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only in this queue.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only of runs with this tag.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only an approval, answer, question, doubt or budget.")
    ] = None,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List what waits for a person: tool calls, and runs that have used up a budget.

    Oldest first.
    """

    async def listed(durably: Durably) -> list[InboxItem]:
        return await durably.inbox(agent=agent, queue=queue, tag=tag, kind=kind)

    items = work_on(Target(app, url).find(), listed)
    if as_json:
        print_json([_inbox_json(item) for item in items])
        return
    if not items:
        say("Nothing waits for a decision.")
        return
    print_table(("RUN", "CALL", "KIND", "TOOL", "SINCE", "ASKED"), map(_inbox_row, items))
    say("")
    for waiting in dict.fromkeys(item.kind for item in items):
        say(_HOW[waiting])


_HOW = {
    "approval": "Let it run, or not:  durably approve RUN CALL, durably deny RUN CALL --reason …",
    "question": "Answer a question:   durably answer RUN CALL TEXT (or --value JSON)",
    "answer": "Answer in its place: durably answer RUN CALL --value JSON",
    "doubt": "Settle a doubt:      durably resolve RUN CALL (--done JSON, --failed TEXT, --again)",
    "budget": "Give more, or end:   durably budgets raise RUN LIMITS (or budgets set), cancel RUN",
}


def _inbox_json(item: InboxItem) -> dict[str, object]:
    run: dict[str, object] = {"run_key": item.run_key, "agent": item.agent, "queue": item.queue}
    run |= {"tags": item.tags, "kind": item.kind, "path": item.path, "since": plain(item.since)}
    if item.effect is None:
        return run | {"waiting": item.waiting}
    return run | {"worker": item.worker} | effect_json(item.effect)


def _run_row(run: RunRecord) -> tuple[object, ...]:
    return (
        run.id,
        run.key,
        run.agent,
        run.state,
        run.queue,
        run.attempt,
        f"{run.failures}/{run.max_attempts}",
        moment_text(run.inserted_at),
        one_line(run.error or "", ERROR_CHARS),
    )


def _inbox_row(item: InboxItem) -> tuple[object, ...]:
    effect, since = item.effect, moment_text(item.since)
    if effect is None:
        from durably.budgets import UsedUp

        used = UsedUp.read(item.waiting)
        if used is None:
            return (" › ".join(item.path), "-", item.kind, "-", since, "; ".join(item.damage))
        whose = "" if used.scope == "run" else f" of {used.scope} {used.name}"
        asked = one_line(f"{used.describe()}{whose}", ARGS_CHARS)
        return (" › ".join(item.path), "-", item.kind, "-", since, asked)
    return (
        " › ".join(item.path),
        effect.call_id,
        item.kind,
        effect.tool_name,
        since,
        _asked(item, effect),
    )


def _asked(item: InboxItem, effect: Effect) -> str:
    """What a person has to know to decide; of a doubt also how it came about."""
    asked = one_line(str(effect.request.get("question") or effect.args), ARGS_CHARS)
    if item.kind != "doubt":
        return asked
    why = effect.error or "its worker died"
    began = moment_text(effect.started_at)
    return (
        f"{asked}  {one_line(why, ARGS_CHARS)} (attempt {effect.attempt}, {item.worker}, {began})"
    )
