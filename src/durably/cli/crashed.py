"""What a crash test has found, for people and for programs.

Owns the table and the names that ``--json`` prints; what was found is `durably.crashtest`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from durably.cli.asjson import parsed, plain
from durably.cli.output import print_grid, say, styled
from durably.cli.text import one_line

if TYPE_CHECKING:
    from durably.crashtest.judge import Finding
    from durably.crashtest.report import CrashReport, Report, ToolReport
    from durably.crashtest.strikes import Strike

SHOWN_PLACES = 3
SHOWN_FINDINGS = 12


def as_plain(report: Report) -> dict[str, Any]:
    """The report as JSON; docs/crashtest.md describes it."""
    fields = plain(report) | {"output": parsed(report.output), "ok": report.ok}
    del fields["crashes"]
    return fields | {
        "findings": [_finding(finding) for finding in report.findings],
        "tools": [_tool(tool) for tool in report.tools],
        "crashes": [_crash(crash) for crash in report.crashes],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return plain(finding) | {"at": str(finding.at)}


def _tool(tool: ToolReport) -> dict[str, Any]:
    return plain(tool) | {"repeated_at": [str(strike) for strike in tool.repeated_at]}


def _crash(crash: CrashReport) -> dict[str, Any]:
    calls = [plain(call) | {"repeated": call.repeated} for call in crash.calls]
    findings = [_finding(finding) for finding in crash.findings]
    return plain(crash) | {"at": str(crash.at), "calls": calls, "findings": findings}


def show(report: Report) -> None:
    """Print it for people: a row for each tool, then what is wrong, then one sentence."""
    if report.tools:
        _show_tools(report.tools)
        say("")
    if not report.forked:
        say("Importing the application starts threads, so each process was a new interpreter.")
    for finding in report.findings[:SHOWN_FINDINGS]:
        say(f"Killed at {finding.at}: {finding.text}")
    if (more := len(report.findings) - SHOWN_FINDINGS) > 0:
        say(f"… and {more} more; --json has them all.")
    say(_summary(report))


def _show_tools(tools: Sequence[ToolReport]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("TOOL", "POLICY", "RAN", "OF", "REPEATED AT", "IN DOUBT", "VERDICT"):
        table.add_column(column, overflow="fold")
    for tool in tools:
        table.add_row(
            styled(one_line(tool.tool)),
            styled(one_line(tool.policy)),
            styled(tool.ran),
            styled(tool.expected),
            styled(_places(tool.repeated_at)),
            styled(_doubts(tool.doubts)),
            styled(_verdict(tool), "green" if tool.ok else "red"),
        )
    print_grid(table)


def _verdict(tool: ToolReport) -> str:
    differs = f"; another result {tool.differs} times" if tool.differs else ""
    return f"{tool.verdict}{differs}"


def _places(strikes: Sequence[Strike]) -> str:
    shown = ", ".join(map(str, strikes[:SHOWN_PLACES]))
    more = len(strikes) - SHOWN_PLACES
    return f"{shown}, {more} more" if more > 0 else shown


def _doubts(doubts: dict[str, int]) -> str:
    return "; ".join(f"{count} x {how}" for how, count in doubts.items())


def _summary(report: Report) -> str:
    killed = sum(crash.killed for crash in report.crashes)
    missed = len(report.crashes) - killed
    crashes = "1 crash" if killed == 1 else f"{killed} crashes"
    of = f"{crashes}, of {report.boundaries} boundaries that the run reaches"
    if missed:
        of += f" ({missed} were not reached again)"
    repeated = sum(max(0, crash.requests_repeated) for crash in report.crashes)
    asked = f"{repeated} model requests in flight were asked again" if repeated else ""
    end = "Nothing was lost, and nothing repeated that may not be."
    if not report.ok:
        many = len(report.findings)
        end = f"{many} things must not be." if many > 1 else "One thing must not be."
    return ". ".join(filter(None, (of, asked, end)))
