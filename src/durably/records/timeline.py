"""What a run did when, as its timeline tells it. Pure data; `durably.timeline` makes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from durably.lifecycle import EffectState
from durably.records.runs import Attempt


@dataclass(frozen=True, slots=True)
class Answer:
    """What a stored response says of itself.

    Attributes:
        seq: its position in the history.
        model: as prices name it, such as ``openai:gpt-5``.
        cost_nanousd: in billionths of a US dollar; None if nobody knows its price.
        tools: the tools that it calls, in order.
    """

    seq: int
    attempt: int
    at: datetime
    model: str
    input_tokens: int
    output_tokens: int
    cost_nanousd: int | None
    tools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TimelineCall:
    """A tool call, or a step inside one, that the ledger knows of.

    Attributes:
        call_id: such as ``3.0``, or ``3.0/charge`` of a step.
        attempt: the attempt that made it, the last one if it was made again.
        started_at: when it began, or began to wait.
        ended_at: when it ended; None: it has not, or nobody knows.
        waited: True if it waited, for a person or for anything else: see the waits.
    """

    call_id: str
    tool_name: str
    policy: str
    state: EffectState
    attempt: int
    started_at: datetime
    ended_at: datetime | None
    waited: bool


@dataclass(frozen=True, slots=True)
class TimelineStep:
    """One model request, and the calls that its response asked for.

    Attributes:
        seq: the position of the response in the history.
        started_at: when the model was asked, at the earliest: when the attempt began, or the last
            response or outcome before it was recorded.
        answered_at: when the response was checkpointed.
        cost_nanousd: in billionths of a US dollar; None if nobody knows the price.
        tools: the tools that it calls, in order; ``calls`` are those that the ledger knows of.
        reused: a later attempt went on from it: it was not paid for again.
    """

    seq: int
    attempt: int
    started_at: datetime
    answered_at: datetime
    model: str
    input_tokens: int
    output_tokens: int
    cost_nanousd: int | None
    tools: tuple[str, ...]
    calls: list[TimelineCall]
    reused: bool

    @property
    def seconds(self) -> float:
        """How long the model took to answer, at most."""
        return (self.answered_at - self.started_at).total_seconds()

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class TimelineWait:
    """A time in which the run, or a call of it, waited.

    Attributes:
        kind: ``queue``: due, and not claimed yet; of a call ``approval``, ``answer``, ``question``,
            ``doubt``, ``timer``, ``signal`` or ``child``; of the run itself ``budget``, ``change``,
            or how it waits in its thread, as far as it still does; ``suspended`` once that is over.
        call_id: the call that waits; empty for the run itself.
        ended_at: None: it still waits.
        by: who ended it, where somebody did.
    """

    kind: str
    call_id: str
    started_at: datetime
    ended_at: datetime | None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """What earlier attempts had done and a later one did not do again.

    Attributes:
        responses: model responses; ``tokens`` and ``cost_nanousd`` are theirs, as far as prices are
            known.
        calls: tool calls with a recorded outcome.
    """

    responses: int = 0
    tokens: int = 0
    cost_nanousd: int = 0
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a run did when.

    Attributes:
        started_at: when it was enqueued.
        ended_at: when it ended; None: it goes on.
        attempts: the tries; one whose ``crashed`` is true lost its worker.
        steps: the model requests that were answered, with their calls.
        waits: by when they began.
        saved: what resuming saved.
    """

    started_at: datetime
    ended_at: datetime | None
    attempts: list[Attempt]
    steps: list[TimelineStep]
    waits: list[TimelineWait]
    saved: Saved
