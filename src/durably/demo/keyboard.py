"""The keyboard: in a terminal, the person in front of it decides about a refund above the limit.

Owns the conversation; what comes of an answer is the ledger's.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import termios
from contextlib import suppress
from decimal import Decimal

from rich.padding import Padding
from rich.text import Text

from durably import Run
from durably.demo.approvals import Request, Ruling
from durably.demo.outside import now
from durably.demo.screen import Screen
from durably.demo.site import Site
from durably.demo.tickets import Answer, money
from durably.errors import TransitionRefused

KEYBOARD = "keyboard"
"""Who is said to have decided."""

CHOICES = "[a]pprove / [d]eny / [e]dit amount: "

DENIAL = "The shop decided against it."
"""What the model is told, and tells the customer."""

MAX_LINE_BYTES = 4096


class NobodyThere(Exception):
    """The terminal has no more input: Ctrl-D, or its window is closed."""


def at_a_terminal() -> bool:
    """True if there is somebody to ask."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def amount(text: str, at_most: int) -> int | None:
    """Cents, of an amount such as ``50``, ``$50`` or ``49.90``; None: it is none, or too much."""
    if not re.fullmatch(r"\$? ?\d{1,9}(\.\d{1,2})?", text, re.ASCII):
        return None
    cents = int(Decimal(text.lstrip("$ ")) * 100)
    return cents if 0 < cents <= at_most else None


class Keyboard:
    """Asks the person at the keyboard, one thing at a time."""

    thinks = True

    def __init__(self, site: Site, screen: Screen) -> None:
        self._site = site
        self._screen = screen
        self._console = screen.console

    async def decide(self, run: Run[Answer], request: Request) -> Ruling | None:
        with self._screen.held():
            cents = await self._unless_decided(run, request)
        at = now()
        try:
            match cents:
                case None:
                    return None
                case 0:
                    await run.deny(request.call_id, reason=DENIAL, by=KEYBOARD)
                    return Ruling("denied", KEYBOARD, request.cents, at)
                case _:
                    edited = None if cents == request.cents else {**request.args, "cents": cents}
                    await run.approve(
                        request.call_id, args=edited, expected=request.args, by=KEYBOARD
                    )
                    return Ruling("approved", KEYBOARD, cents, at)
        except TransitionRefused:
            return None

    async def _unless_decided(self, run: Run[Answer], request: Request) -> int | None:
        """What the person says, or None if somebody decides elsewhere before."""
        asking = asyncio.create_task(self._ask(request))
        elsewhere = asyncio.create_task(_decided(run, request.call_id))
        try:
            await asyncio.wait((asking, elsewhere), return_when=asyncio.FIRST_COMPLETED)
        finally:
            asking.cancel()
            elsewhere.cancel()
            await asyncio.wait((asking, elsewhere))
            if asking.cancelled():
                self._console.print()  # The cursor stands behind the question.
        return elsewhere.result() if asking.cancelled() else asking.result()

    async def _ask(self, request: Request) -> int:
        """How much may be paid; 0 is a denial.

        Raises:
            NobodyThere: there is no more input.
        """
        ticket = request.ticket
        self._console.print(
            Text(f"\n{ticket.id} waits for you: {request}", "bold yellow"), soft_wrap=True
        )
        said = Text(f"{ticket.name}, “{ticket.subject}”: {ticket.body}", "italic")
        self._console.print(Padding(said, (0, 2)))
        elsewhere = self._site.command(f"approve {ticket.id} {request.call_id}")
        self._console.print(
            Text(f"  The others go on. In another terminal: {elsewhere}", "dim"), soft_wrap=True
        )
        # What was typed before is no answer to this.
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        while True:
            match (await self._line(CHOICES)).lower():
                case "a" | "approve":
                    return request.cents
                case "d" | "deny":
                    return 0
                case "e" | "edit":
                    if cents := await self._amount(request.cents):
                        return cents
                case _:
                    self._console.print("Type a, d or e, and Enter; Ctrl-C leaves it waiting.")

    async def _amount(self, at_most: int) -> int | None:
        """An amount; None if there shall be none after all."""
        while text := await self._line(f"Amount, {money(at_most)} at most (Enter: go back): "):
            if cents := amount(text, at_most):
                return cents
            self._console.print(f"{text!r} is no such amount; write 25 or 49.90.", markup=False)
        return None

    async def _line(self, prompt: str) -> str:
        self._console.print(Text(prompt, "bold"), end="")
        return await _read_line(sys.stdin.fileno())


async def _read_line(terminal: int) -> str:
    """A line, once Enter is pressed. No thread waits for it, so that Ctrl-C need not."""
    loop = asyncio.get_running_loop()
    typed = loop.create_future()

    def read() -> None:
        loop.remove_reader(terminal)
        data = b""
        with suppress(OSError):  # The terminal is gone: no more input.
            data = os.read(terminal, MAX_LINE_BYTES)
        if not typed.cancelled():
            typed.set_result(data)

    loop.add_reader(terminal, read)
    try:
        data: bytes = await typed
    finally:
        loop.remove_reader(terminal)
    if not data:
        raise NobodyThere
    return data.decode("utf-8", "replace").strip()


async def _decided(run: Run[Answer], call_id: str) -> None:
    """Wait until somebody has decided about a call."""
    async for event in run.watch():
        if event.kind in ("approved", "denied") and event.data["call_id"] == call_id:
            return
