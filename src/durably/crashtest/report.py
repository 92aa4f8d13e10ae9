"""What a crash test has found: for each crash, for each tool, and altogether. Pure data.

Owns the names that ``--json`` prints, and the words of a tool's verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from durably.crashtest.compare import Agreement
from durably.crashtest.judge import CallReport, Finding
from durably.crashtest.probe import Counts
from durably.crashtest.strikes import Strike


@dataclass(frozen=True)
class CrashReport:
    """One crash, and what came of it.

    Attributes:
        killed: False if the run ended before it came to the boundary; then nothing was crashed.
        state: the run's, in the end; None if it did not come to one.
        requests_repeated: how often the model was asked more than in the undisturbed run: for what
            was in flight.
        probe: by how much the counts of the probe grew; None without one.
    """

    at: Strike
    killed: bool
    state: str | None
    calls: Sequence[CallReport]
    requests_repeated: int
    agreed: Agreement | None
    probe: Counts | None
    findings: Sequence[Finding]


@dataclass(frozen=True)
class ToolReport:
    """A tool, or a step of one, over all crashes.

    Attributes:
        crashes: how many runs were crashed and finished.
        expected: how often its body would have begun in so many undisturbed runs; ``ran``: how
            often it did.
        repeated_at: after which crashes it ran again.
        doubts: how it was settled when it was in doubt, and how often.
        differs: in how many crashed runs it returned something else than usual.
        ok: False if something must not be.
    """

    tool: str
    policy: str
    crashes: int
    expected: int
    ran: int
    repeated_at: list[Strike]
    doubts: dict[str, int]
    differs: int
    ok: bool
    verdict: str


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        url: of the database that the ledgers were made in; ``sqlite`` for temporary files.
        forked: False if every process was a new interpreter, as the application starts threads.
        boundaries: how many the run reaches; ``crashes`` has those at which it was killed.
        requests: how many model requests the undisturbed run makes.
        varies: what is another in any two runs, and was not compared.
        probe: by how much the counts grow in an undisturbed run.
    """

    app: str
    agent: str
    database: str
    seed: int
    scripted: bool
    forked: bool
    boundaries: int
    requests: int
    output: str | None
    varies: list[str]
    probe: Counts | None
    crashes: list[CrashReport] = field(default_factory=list["CrashReport"])

    @property
    def findings(self) -> list[Finding]:
        """Everything that must not be, in the order of the crashes."""
        return [finding for crash in self.crashes for finding in crash.findings]

    @property
    def ok(self) -> bool:
        return not self.findings

    @property
    def tools(self) -> list[ToolReport]:
        """Every tool that ran, in the order of its first call."""
        names = dict.fromkeys(call.tool for crash in self.crashes for call in crash.calls)
        return [_tool(name, [c for c in self.crashes if c.killed]) for name in names]


def _tool(name: str, crashes: Sequence[CrashReport]) -> ToolReport:
    calls = [(crash, call) for crash in crashes for call in crash.calls if call.tool == name]
    policy = calls[0][1].policy if calls else ""
    repeated = [crash.at for crash, call in calls if call.repeated]
    doubts = Counter(call.doubt for _, call in calls if call.doubt is not None)
    wrong = [f for crash in crashes for f in crash.findings if f.tool == name]
    differs = sum(
        crash.agreed is not None and name.partition("/")[0] in crash.agreed.results
        for crash in crashes
    )
    return ToolReport(
        tool=name,
        policy=policy,
        crashes=len(crashes),
        expected=sum(call.expected for _, call in calls),
        ran=sum(call.ran for _, call in calls),
        repeated_at=list(dict.fromkeys(repeated)),
        doubts=dict(doubts),
        differs=differs,
        ok=not wrong,
        verdict=_verdict(policy, len(repeated), wrong),
    )


def _verdict(policy: str, repeated: int, wrong: Iterable[Finding]) -> str:
    kinds = {finding.kind for finding in wrong}
    if "probe" in kinds and policy in ("read", "idempotent"):
        return f"is not {policy.upper()}"
    if "probe" in kinds:
        return "happened another number of times outside"
    if "repeat" in kinds:
        return "repeated, and must not be"
    if "missing" in kinds:
        return "did not run"
    if not repeated:
        return "never repeated"
    return {
        "read": "repeated, which READ allows",
        "idempotent": "repeated, which IDEMPOTENT allows",
        "transactional": "repeated where nothing was committed",
        "waits": "ran again from its start, as WAITS does",
        "once (retry)": "repeated, which on_doubt='retry' allows",
    }.get(policy, "ran again where it had not ended")
