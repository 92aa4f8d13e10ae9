"""What must hold of histories, events and threads after a soak; see `audit`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from crash.world import receipt
from soak.audit import nonce_of
from soak.evidence import FINAL, Evidence, RunEvidence
from soak.person import ANSWER, is_denied
from soak.workload import child_of

UNKNOWN = "The outcome of this call"


def histories_are_whole(evidence: Evidence) -> Iterator[str]:
    """Each message is there once, and says what the model and the tools said."""
    for run in evidence.runs.values():
        seqs = [message["seq"] for message in run.messages]
        if seqs != list(range(len(seqs))):
            yield f"Run {run.key} has messages {seqs}."
            continue
        for number, response in enumerate(run.responses):
            yield from _check_response(run, number, response["body"])
        for before, after in pairwise(run.messages):
            if before["kind"] == "response":
                yield from _check_answers(evidence, run, before, after)
        if run.completed and not run.was_steered:
            yield from _check_end(run)


def _check_response(run: RunEvidence, number: int, body: dict[str, Any]) -> Iterator[str]:
    if number >= len(run.script):
        yield f"Run {run.key} ({run.scenario}) has a response {number} that is not in its script."
        return
    planned = run.script[number]
    tools = [part["tool_name"] for part in body["parts"] if part["part_kind"] == "tool-call"]
    if isinstance(planned, str):
        text = planned.format(key=run.key, nonce=nonce_of(body))
        if [part.get("content") for part in body["parts"]] != [text]:
            yield f"Response {number} of run {run.key} is not what the model said: {body['parts']}"
    elif tools != planned:
        yield f"Response {number} of run {run.key} calls {tools}; the model called {planned}."


def _check_answers(
    evidence: Evidence, run: RunEvidence, response: dict[str, Any], request: dict[str, Any]
) -> Iterator[str]:
    """Each call of a response is answered once, with what its tool said."""
    calls = [p for p in response["body"]["parts"] if p["part_kind"] == "tool-call"]
    answers = [
        part
        for part in request["body"]["parts"]
        if part["part_kind"] in ("tool-return", "retry-prompt")
    ]
    answered = sorted(str(part["tool_call_id"]) for part in answers)
    if request["kind"] != "request" or answered != [part["tool_call_id"] for part in calls]:
        yield f"Response {response['seq']} of run {run.key} is answered by {request['body']}."
        return
    effects = {(e["response"], e["call"]): e for e in run.effects if not e["step"]}
    for part in answers:
        call = int(part["tool_call_id"].removeprefix("call_"))
        effect = effects.get((response["seq"], call))
        if effect is None:
            yield f"Call {response['seq']}.{call} of run {run.key} is answered, and not recorded."
        elif not _is_right(evidence, run, effect, part["content"]):
            yield (
                f"Call {effect['idempotency_key']} ({effect['tool_name']}, {effect['state']}) was "
                f"answered with {part['content']!r}."
            )


def _is_right(evidence: Evidence, run: RunEvidence, effect: dict[str, Any], content: Any) -> bool:
    """Whether an answer is the tool's."""
    tool, key = effect["tool_name"], effect["idempotency_key"]
    match tool:
        case "ask_person":
            return content == ANSWER
        case "pay" if is_denied(key):
            return content == "Not this one."
        case "call" if str(content).startswith(UNKNOWN):
            # What the model was told stays, also if how the call ended is known by now.
            return effect["state"] == "in_doubt" or effect["resolved_by"] == "late evidence"
        case "listen":
            return content == ["first", "second"]
        case "work":
            steps = {
                step: receipt(tool, f"{key}/{step}") for step in ("ask", "book", "find", "sync")
            }
            return content == [steps["ask"], steps["book"], None, steps["find"], steps["sync"]]
        case "delegate":
            child = evidence.runs.get(child_of(run.key))
            said = None if child is None or not child.completed else json.loads(child.row["output"])
            return content == [receipt(tool, f"{key}/before"), said]
        case _:
            return content == receipt(tool, key)


def _check_end(run: RunEvidence) -> Iterator[str]:
    if len(run.responses) != len(run.script):
        responses = f"{len(run.responses)} of {len(run.script)} responses"
        yield f"Run {run.key} is completed after {responses}."
    elif run.messages[-1]["kind"] != "response":
        yield f"Run {run.key} is completed, and its history ends in a {run.messages[-1]['kind']}."
    elif json.loads(run.row["output"]) != run.responses[-1]["body"]["parts"][0].get("content"):
        yield f"Run {run.key} has an output that its model has not given: {run.row['output']}"


def events_tell_everything_in_order(evidence: Evidence) -> Iterator[str]:
    """Each claim, message and end has its event, once and in order; watchers saw every one."""
    for run in evidence.runs.values():
        kinds = [event["kind"] for event in run.events]
        if kinds[:1] != ["enqueued"] or kinds.count("enqueued") != 1:
            yield f"The events of run {run.key} begin with {kinds[:2]}."
        claimed = [event["attempt"] for event in run.events if event["kind"] == "claimed"]
        if claimed != list(range(1, run.row["attempt"] + 1)):
            yield f"Run {run.key} is at attempt {run.row['attempt']}; claimed are {claimed}."
        steps = [json.loads(event["data"]) for event in run.events if event["kind"] == "step"]
        said = [seq for step in steps for seq in step["messages"]]
        # The end says by itself that the last messages are there.
        if said != list(range(len(said))) or len(said) > len(run.messages):
            yield f"Run {run.key} has {len(run.messages)} messages; its events tell of {said}."
        # A run whose worker died may end in being rescued: that event says so.
        ends = [end for end in map(_end_told, run.events) if end in FINAL]
        if run.state in FINAL and ends != [run.state]:
            yield f"Run {run.key} is {run.state}; its events tell of {ends}."
        if "delta" in kinds:
            yield f"Pieces of a message of run {run.key} are left."
    for key, seen in evidence.watched.items():
        events = evidence.runs[key].events
        ids = [event["id"] for event in events]
        ends = [event["id"] for event in events if _end_told(event) in FINAL]
        if seen != ids[: len(seen)] or not ends or ends[-1] not in seen:
            yield f"Who watched run {key} saw the events {seen}; they are {ids}."


def threads_go_one_at_a_time(evidence: Evidence) -> Iterator[str]:
    """Runs of a thread go in order, none before the one before has ended; each knows the others."""
    for thread, runs in evidence.threads.items():
        going = [run for run in runs if run.attempts]
        for before, after in pairwise(going):
            ended = [event["id"] for event in before.events if _end_told(event) in FINAL]
            began = [event["id"] for event in after.events if event["kind"] == "claimed"]
            if not ended or not began or began[0] < ended[-1]:
                yield f"Run {after.key} of {thread} began before run {before.key} had ended."
        for index, run in enumerate(runs):
            known = {r.key for r in runs[:index] if r.completed}
            mine = {r.key for r in runs}
            for paid in run.deeds.paid:
                if not known <= set(paid["saw"]) <= mine or run.key not in paid["saw"]:
                    yield f"The model of run {run.key} of {thread} saw the prompts {paid['saw']}."


def _end_told(event: dict[str, Any]) -> str:
    """The state that an event tells of, if it tells of one."""
    if event["kind"] == "rescued":
        return str(json.loads(event["data"])["state"])
    return str(event["kind"])
