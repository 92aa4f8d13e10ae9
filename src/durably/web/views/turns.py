"""What a conversation consists of, as a page shows it: turns and their parts. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from durably.lifecycle import EffectState
from durably.records import Attempt, Effect
from durably.web.views.files import File
from durably.web.views.text import one_line
from durably.web.views.values import Shown


@dataclass(frozen=True, slots=True)
class Said:
    """Text of somebody.

    Attributes:
        who: ``user``, ``assistant``, ``system``, ``thinking`` or ``retry``.
        html: of the model, sanitised Markdown; None: ``text`` is shown as it is.
        cut: there is more.
    """

    who: str
    text: str
    html: Markup | None
    cut: bool
    part: int
    kind: str = "said"

    @property
    def summary(self) -> str:
        return one_line(self.text, 120)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered.

    Attributes:
        how: ``success``, ``failed``, ``denied``, ``retried`` or ``interrupted``.
        message: the position of the message that says it; None: only the ledger does yet.
    """

    how: str
    value: Shown
    files: tuple[File, ...] = ()
    message: int | None = None
    part: int = 0


@dataclass(frozen=True, slots=True)
class Inside:
    """A step or wait that a tool's own code made."""

    effect: Effect
    args: Shown
    answer: Answer | None


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call, and what became of it.

    Attributes:
        call_id: as people and commands use it; empty of one that the provider made itself.
        running: it has begun, and whoever watches is told when it is over.
    """

    call_id: str
    tool_name: str
    args: Shown
    effect: Effect | None
    answer: Answer | None
    inside: tuple[Inside, ...]
    part: int
    running: bool = False
    kind: str = "call"

    @property
    def state(self) -> str:
        """In one word."""
        if self.effect is not None and (self.effect.state is not EffectState.DONE):
            return str(self.effect.state)
        if self.answer is None and self.running:
            return str(EffectState.STARTED)
        if self.answer is None:
            return str(self.effect.state) if self.effect else ""
        return "done" if self.answer.how == "success" else self.answer.how


@dataclass(frozen=True, slots=True)
class Result:
    """What was answered to a call that is not shown."""

    tool_name: str
    answer: Answer
    kind: str = "result"


@dataclass(frozen=True, slots=True)
class Raw:
    """What this version does not know, or what is damaged: as it is."""

    name: str
    value: Shown
    part: int
    kind: str = "raw"


type Part = Said | Call | Result | File | Raw


@dataclass(frozen=True, slots=True)
class Turn:
    """One message, as far as something of it is shown by itself.

    Attributes:
        role: ``request`` or ``response``.
        begins: the attempt that begins with it, where that is not the first.
        ended: those that ended since the message before.
    """

    seq: int
    role: str
    attempt: int
    at: datetime | None
    parts: tuple[Part, ...]
    model: str = ""
    tokens: str = ""
    begins: Attempt | None = None
    ended: tuple[Attempt, ...] = ()
