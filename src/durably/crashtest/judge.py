"""What is right and wrong after one crash: every call by its policy, every request, the end.

Pure: takes what the undisturbed run left and what this one left. Owns the rules; they are those of
docs/effects.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from durably.crashtest.compare import Agreement
from durably.crashtest.facts import SETTLED, BodyRuns, Facts
from durably.crashtest.notes import RUN
from durably.crashtest.strikes import Strike

type Kind = Literal["repeat", "missing", "paid twice", "lost", "output", "history", "probe"]


@dataclass(frozen=True)
class Finding:
    """Something that must not be.

    Attributes:
        kind: ``repeat``: a call ran again that may not; ``missing``: one did not run at all;
            ``paid twice``: a saved response was asked for again; ``lost``: the run did not end as
            the recorded one; ``output``, ``history``: it differs; ``probe``: the world outside has
            more of it, or less, than the recorded run left.
        tool: whose call it is; None: it is about the run.
        call: the call's id.
    """

    kind: Kind
    at: Strike
    text: str
    tool: str | None = None
    call: str | None = None


@dataclass(frozen=True)
class CallReport:
    """One call, or step, after a crash.

    Attributes:
        policy: as declared.
        expected: how often its body was begun in the undisturbed run.
        ran: how often here, in both processes.
        doubt: how it was settled, if the crash left it in doubt.
    """

    run: str
    call: str
    tool: str
    policy: str
    expected: int
    ran: int
    doubt: str | None

    @property
    def repeated(self) -> int:
        """How often more than in the undisturbed run."""
        return max(0, self.ran - self.expected)


def report_calls(usual: Facts, facts: Facts) -> list[CallReport]:
    """Every call whose body ran, here or in the undisturbed run."""
    reports: list[CallReport] = []
    for place in {**usual.bodies, **facts.bodies}:
        here, there = facts.bodies.get(place), usual.bodies.get(place)
        body = here or there
        assert body is not None, "it is in one of them"
        if not any(one and one.began.total() for one in (here, there)):
            continue  # A question: it has no body.
        reports.append(
            CallReport(
                run=body.run,
                call=body.call,
                tool=body.label,
                policy=(facts if here else usual).policy(body),
                expected=0 if there is None else there.began.total(),
                ran=0 if here is None else here.began.total(),
                doubt=_doubt(facts, body),
            )
        )
    return reports


def _doubt(facts: Facts, body: BodyRuns) -> str | None:
    """How a call was settled that the crash left in doubt."""
    before = facts.before.get(body.run)
    effect = None if before is None else before.effects.get(body.call)
    if body.settled:
        how, because = body.settled[-1]
        return f"{how}: it {because}"
    if effect is None or effect.state not in ("started", "in_doubt"):
        return None
    if facts.told(body):
        return "the model was told"
    again = body.began["finish"] > 0
    if "reconcile" in facts.policy(body):
        return "reconcile: not done" if again else "reconcile: done"
    return "run again" if again else None


def judge(usual: Facts, facts: Facts, at: Strike, agreed: Agreement) -> list[Finding]:
    """Everything that must not be after this crash."""
    findings = _the_end(usual, facts, at, agreed)
    for body in facts.bodies.values():
        findings += _call(usual, facts, body, at)
    if not any(finding.kind == "lost" for finding in findings):
        findings += _missing(usual, facts, at)
    return findings + _requests(facts, at)


def _the_end(usual: Facts, facts: Facts, at: Strike, agreed: Agreement) -> list[Finding]:
    if facts.stuck is not None:
        return [Finding("lost", at, facts.stuck)]
    end = facts.main
    if end.state != usual.main.state:
        why = f": {end.error}" if end.error else "."
        return [Finding("lost", at, f"The run is {end.state}{why}")]
    places = f" ({', '.join(agreed.where)})" if agreed.where else ""
    found: list[Finding] = []
    if not agreed.output:
        found.append(Finding("output", at, f"The output is another one{places}."))
    if not agreed.history:
        found.append(Finding("history", at, f"The history is another one{places}."))
    return found


def _call(usual: Facts, facts: Facts, body: BodyRuns, at: Strike) -> list[Finding]:
    policy = facts.policy(body)
    again = body.began["finish"]
    if policy != "waits" and again and _was_settled(facts, body):
        text = f"{body.label} ran again although its result was recorded."
        return [Finding("repeat", at, text, body.label, body.call)]
    if not policy.startswith("once") or policy == "once (retry)":
        return []
    there = usual.bodies.get((body.run, body.call))
    times, allowed = body.ended.total(), max(1, 0 if there is None else there.ended.total())
    if times > allowed:
        text = f"{body.label} ran to its end {times} times"
        if "reconcile" in policy:
            text += ": its reconcile function said that it had not happened"
        return [Finding("repeat", at, f"{text}.", body.label, body.call)]
    if again and body.began["crash"] and facts.told(body):
        text = f"{body.label} ran again although the model was told that its outcome is unknown."
        return [Finding("repeat", at, text, body.label, body.call)]
    return []


def _was_settled(facts: Facts, body: BodyRuns) -> bool:
    before = facts.before.get(body.run)
    effect = None if before is None else before.effects.get(body.call)
    return effect is not None and effect.state in SETTLED


def _missing(usual: Facts, facts: Facts, at: Strike) -> list[Finding]:
    """Calls that never ran, and of which the model was not told so."""
    found: list[Finding] = []
    for place, there in usual.bodies.items():
        here = facts.bodies.get(place)
        if there.began.total() == 0 or (here is not None and here.began.total() > 0):
            continue
        if facts.told(there):
            continue
        text = f"{there.label} did not run at all, and is recorded as if it had."
        found.append(Finding("missing", at, text, there.label, there.call))
    return found


def _requests(facts: Facts, at: Strike) -> list[Finding]:
    """Saved responses that were asked for again."""
    found: list[Finding] = []
    for role, run, number in facts.asked:
        before = facts.before.get(run)
        if role == "finish" and before is not None and number < before.responses:
            whose = "the run" if run == RUN else f"its child {run.replace(RUN, '…')}"
            text = f"Response {number + 1} of {whose} was saved, and asked for again."
            found.append(Finding("paid twice", at, text))
    return found
