"""The office: where nobody sits at a terminal, another process decides, with plain commands.

Owns what is run, and what it says; both commands are durably's own.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

from durably import Run
from durably.demo.approvals import Request, Ruling, decided_elsewhere
from durably.demo.crew import own_environment
from durably.demo.outside import now
from durably.demo.screen import Screen
from durably.demo.site import Site
from durably.demo.tickets import Answer
from durably.errors import DurablyError

OFFICE = "office"
"""Who is said to have decided."""

COMMAND_SECONDS = 120.0
"""How long a command may take; it takes about one."""


class CommandFailed(DurablyError):
    """A command of the office did not work; the message is what it said."""


class Office:
    """Looks into the inbox and approves what is there, as a cron job or another service would."""

    thinks = False

    def __init__(self, site: Site, screen: Screen) -> None:
        self._site = site
        self._screen = screen
        # By the environment: a URL can hold a password, and every user can read a command's words.
        self._environment = own_environment() | {"DURABLY_URL": site.database.url}

    async def decide(self, run: Run[Answer], request: Request) -> Ruling | None:
        inbox = json.loads(await self._durably("inbox", "--json", "--kind", "approval"))
        wanted = (run.key, request.call_id)
        item = next((i for i in inbox if (i["run_key"], i["call_id"]) == wanted), None)
        if item is None:
            return None
        self._screen.say(
            f"{run.key} is in `durably inbox`; another process runs "
            f"`durably approve {run.key} {item['call_id']} --by {OFFICE}`"
        )
        at = now()
        expected = ("--expected", json.dumps(item["args"]))
        try:
            await self._durably("approve", run.key, item["call_id"], "--by", OFFICE, *expected)
        except CommandFailed:
            if await decided_elsewhere(run, request) is None:
                raise
            return None
        return Ruling("approved", OFFICE, item["args"]["cents"], at)

    async def _durably(self, *words: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "durably", *words],
            env=self._environment,
            cwd=self._site.folder,  # no settings of another application
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            start_new_session=True,  # Ctrl-C is for the demo
        )
        if done.returncode != 0:
            raise CommandFailed(f"durably {words[0]}: {done.stderr.strip()}")
        return done.stdout
