"""``durably doctor``: is everything here as it should be, and if not, what is wrong."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from durably.cli.asjson import plain
from durably.cli.exits import FAILED
from durably.cli.options import AppOption, DebugOption, JsonOption, UrlOption
from durably.cli.output import console, print_grid, print_json, styled
from durably.cli.target import Target
from durably.cli.text import one_line

if TYPE_CHECKING:
    from durably.app import Durably
    from durably.records import Finding

SIGNS = {"ok": "✓", "warning": "!", "problem": "✗"}


def doctor(
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Check that everything is as it should be.

    Versions, the ledger and its disk, workers, queues, agents. Exits 1 if there is a problem.
    """
    import asyncio

    from durably.records import FindingStatus

    durably = Target(app, url).find()
    with console(stderr=True).status("Looking…"):
        findings = [*_versions(), *asyncio.run(_examine(durably))]
    problems = sum(finding.status is FindingStatus.PROBLEM for finding in findings)
    if as_json:
        print_json({"ok": not problems, "findings": plain(findings)})
    else:
        _print(findings, problems)
    if problems:
        raise typer.Exit(FAILED)


async def _examine(durably: Durably) -> list[Finding]:
    try:
        return await durably.examine()
    finally:
        await durably.close()


def _versions() -> list[Finding]:
    import platform
    from importlib.metadata import requires

    from durably.records import Finding, FindingStatus

    names = [_name(requirement) for requirement in requires("durably") or []]
    found = ", ".join(f"{name} {_version(name)}" for name in names if _version(name))
    return [
        Finding("durably", FindingStatus.OK, _version("durably") or "not installed as a package"),
        Finding("Python", FindingStatus.OK, f"{platform.python_version()}, {sys.executable}"),
        Finding("packages", FindingStatus.OK, found),
    ]


def _name(requirement: str) -> str:
    """The package that a requirement such as ``typer>=0.16; extra == 'x'`` names."""
    for index, character in enumerate(requirement):
        if not (character.isalnum() or character in "-_."):
            return requirement[:index]
    return requirement


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _print(findings: list[Finding], problems: int) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        sign = styled(SIGNS[finding.status])
        sign.stylize(styled(finding.status).style)
        table.add_row(sign, styled(one_line(finding.subject, 40)), styled(one_line(finding.text)))
    print_grid(table)
    print(f"\n{problems} problem{'' if problems == 1 else 's'}.")
