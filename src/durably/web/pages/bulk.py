"""What people do to many runs at once: cancel or retry those that they chose, or all that match.

Owns how many it is going to be, which is asked about first, and what is said of the result.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from durably.errors import ConfigError
from durably.lifecycle import RunState, allowed
from durably.searching import RunOutcome
from durably.web.errors import wrong
from durably.web.pages.rendering import page, path_of
from durably.web.pages.routing import page_routes, same_site
from durably.web.site import Operator, Site, SiteOf
from durably.web.views.finding import Wanted, wanted

routes = page_routes()

TRANSITIONS = {"cancel": ("cancel",), "retry": ("revive", "wake")}
"""What can be done to many runs, and by which transitions of a run."""

COUNT_SECONDS = 1.0
MOST_COUNTED = 1000
MOST_KEYS = 1000

ACT_SECONDS = 20.0
"""How long one post goes on; what is left by then is done by another."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants to do, and to which runs.

    Attributes:
        keys: the chosen ones; None: all that match.
        before: no run with this id or a higher one: none that was enqueued since it was asked.
    """

    action: str
    keys: list[str] | None
    wanted: Wanted
    before: int | None = None

    @property
    def filters(self) -> dict[str, Any]:
        """Those of what is looked for, and the states in which it is possible at all."""
        possible = [
            state
            for state in RunState
            if any(allowed(name, state) for name in TRANSITIONS[self.action])
            and self.wanted.given.get("state", state) == state
        ]
        return self.wanted.filters | {"state": possible}


@dataclass(frozen=True, slots=True)
class Count:
    """How many runs it would be done to; ``more``: that many or more."""

    runs: int
    more: bool
    newest: int | None = None


@routes.post("/parts/bulk", name="durably:bulk")
async def ask(request: Request, site: SiteOf, person: Operator) -> Response:
    """How many runs it would be, as a form that does it."""
    asked = _asked(await _posted(request))
    counted = Count(len(asked.keys), False) if asked.keys is not None else await _count(site, asked)
    template = "parts/bulk.html" if request.headers.get("hx-request") else "bulk.html"
    return page(request, template, asked=asked, count=counted)


@routes.post("/do/bulk", name="durably:do-bulk")
async def act(request: Request, site: SiteOf, person: Operator) -> Response:
    """Do it."""
    form = await _posted(request)
    try:
        done, more = await _act(site, _asked(form), person.name)
    except Exception as error:
        found = wrong(error)
        if found is None or not request.headers.get("hx-request"):
            raise
        return page(
            request, "parts/said.html", status=found.status, text=found.detail, refused=True
        )
    if not request.headers.get("hx-request"):
        back = str(form.get("next") or path_of(request, "durably:runs"))
        return RedirectResponse(same_site(request, back), 303)
    refused = [outcome for outcome in done if not outcome.done]
    answered = page(request, "parts/bulk_done.html", done=done, refused=refused, more=more)
    answered.headers["HX-Trigger"] = "durably:changed"
    return answered


async def _act(site: Site, asked: Asked, by: str) -> tuple[list[RunOutcome], bool]:
    """Do it; what became of each run, and whether there are more."""
    do = site.app.cancel_runs if asked.action == "cancel" else site.app.retry_runs
    if asked.keys is not None:
        return (await do(keys=asked.keys, by=by)).runs, False
    deadline = time.monotonic() + ACT_SECONDS
    outcomes: list[RunOutcome] = []
    before = asked.before
    while True:
        result = await do(**asked.filters, before=before, by=by)
        outcomes += result.runs
        before = result.next_before
        if before is None or time.monotonic() > deadline:
            return outcomes, before is not None


async def _count(site: Site, asked: Asked) -> Count:
    """How many runs match and allow it, as far as that can be counted soon."""
    if not asked.filters["state"]:
        return Count(0, False)
    deadline = time.monotonic() + COUNT_SECONDS
    runs, newest, before = 0, None, None
    while True:
        found = await site.app.search(**asked.filters, before=before, limit=MOST_COUNTED)
        runs += sum(asked.action in run.actions_allowed for run in found.runs)
        newest = newest or (found.runs[0].record.id if found.runs else None)
        before = found.next_before
        if before is None:
            return Count(runs, False, newest)
        if runs >= MOST_COUNTED or time.monotonic() > deadline:
            return Count(runs, True, newest)


async def _posted(request: Request) -> Mapping[str, Any]:
    form = await request.form()
    texts = [(name, text) for name, text in form.multi_items() if isinstance(text, str)]
    return {**dict(texts), "texts": texts, "keys": [text for name, text in texts if name == "run"]}


def _asked(form: Mapping[str, Any]) -> Asked:
    """What somebody wants.

    Raises:
        ConfigError: nothing that can be done.
    """
    action, keys = str(form.get("action", "")), list(dict.fromkeys(form["keys"]))
    action, _, scope = action.partition("-")
    if action not in TRANSITIONS:
        raise ConfigError(f"{action[:40]!r} is not done to many runs: cancel or retry them.")
    looked_for = wanted(form["texts"])
    if looked_for.wrong:
        raise ConfigError(" ".join(looked_for.wrong.values()))
    if scope == "all":
        before = str(form.get("before", ""))
        return Asked(action, None, looked_for, int(before[:20]) if before.isdecimal() else None)
    if not keys:
        raise ConfigError("No run is chosen: tick those that are meant.")
    if len(keys) > MOST_KEYS:
        raise ConfigError(f"{len(keys)} runs are chosen: at most {MOST_KEYS} at once.")
    return Asked(action, keys, looked_for)
