"""How an attempt can end, as values; expected ends are not errors.

Owns the values and the one exception that carries them out of an agent's run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from durably.ledger.written import NewMessage


@dataclass(frozen=True, slots=True)
class Completed:
    """The agent gave its output; ``messages`` are the last ones, after the last checkpoint.

    Attributes:
        cost_nanousd: what the run cost so far; None: as it was.
    """

    output: str
    usage: str
    messages: tuple[NewMessage, ...] = ()
    cost_nanousd: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt raised; the executor decides between another try and giving up."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Discarded:
    """The run must not go on, by a declared policy."""

    reason: str


@dataclass(frozen=True, slots=True)
class Suspended:
    """The run waits.

    Attributes:
        kind: ``"effects"`` (people settle the named ones), ``"waits"`` (only times, signals and
            children are waited for), ``"change"`` (somebody accepts the changed agent) or
            ``"budget"`` (somebody raises it).
    """

    kind: str
    on: dict[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class HandedBack:
    """The worker is leaving; any other may take the run at once."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The run was asked to stop."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Another attempt owns the run; there is nothing to settle."""


type Outcome = Completed | Failed | Discarded | Suspended | HandedBack | Cancelled | Lost


class Waits(BaseException):
    """Carries a wait out of a tool's own code: the call is not over, and goes on another time.

    Not an ``Exception``, as `AttemptEnds` is none: nothing has failed.
    """


class AttemptEnds(BaseException):
    """Carries an expected end out of the agent's run.

    Not an ``Exception``, for the reason that ``asyncio.CancelledError`` is none: code that handles
    errors (a tool, a capability, a user's hook) must not mistake it for one.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome
