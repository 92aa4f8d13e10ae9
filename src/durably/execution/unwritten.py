"""What an attempt knows and has not written yet: all of it goes with the next write.

Owns what that is, and what is left of it once a write is durable; when there is one is the
journal's.
"""

from __future__ import annotations

from durably.ledger.budgets import Sharing
from durably.ledger.written import CallOutcome, NewMessage, Step
from durably.records import CallPosition


class Unwritten:
    """What waits for the next write.

    Attributes:
        usage, cost_nanousd: what the run has spent so far; None: nothing that is news.
        model: the one that answered last.
        sharing: the budgets that the run shares.
    """

    def __init__(self) -> None:
        self.usage: str | None = None
        self.cost_nanousd: int | None = None
        self.model: str | None = None
        self.sharing: Sharing | None = None
        self._fingerprint: str | None = None
        self._fingerprint_is_news = False
        self._events: list[tuple[str, dict[str, object]]] = []
        self._kept: dict[CallPosition, CallOutcome] = {}

    @property
    def outcomes(self) -> tuple[CallOutcome, ...]:
        """Of calls that need no write of their own."""
        return tuple(self._kept.values())

    @property
    def is_news(self) -> bool:
        """Whether there is anything that a write would be made for."""
        return bool(self._kept or self._events or self._fingerprint_is_news)

    def keep(self, outcome: CallOutcome) -> None:
        """Have an outcome ride along."""
        self._kept[outcome.call.position] = outcome

    def note(self, kind: str, data: dict[str, object]) -> None:
        """Have an event ride along."""
        self._events.append((kind, data))

    def note_fingerprint(self, fingerprint: str) -> None:
        """Have the agent's fingerprint ride along, if it is news."""
        if fingerprint != self._fingerprint:
            self._fingerprint = fingerprint
            self._fingerprint_is_news = True

    def step(
        self,
        messages: tuple[NewMessage, ...],
        usage: str | None = None,
        cost_nanousd: int | None = None,
        *,
        streams: bool,
        events: tuple[tuple[str, dict[str, object]], ...] = (),
    ) -> Step:
        """All of it, with messages, as it is written.

        Args:
            events: what is told by this write or by none.
        """
        return Step(
            usage=usage or self.usage,
            messages=messages,
            outcomes=self.outcomes,
            fingerprint=self._fingerprint if self._fingerprint_is_news else None,
            events=(*self._events, *events),
            cost_nanousd=self.cost_nanousd if cost_nanousd is None else cost_nanousd,
            sharing=self.sharing,
            streams=streams,
            model=self.model,
        )

    def forget(self, step: Step) -> None:
        """Keep for the next write only what this one has not made durable."""
        for outcome in step.outcomes:
            if self._kept.get(outcome.call.position) is outcome:
                del self._kept[outcome.call.position]
        if self._events:
            told = {id(event) for event in step.events}
            self._events = [event for event in self._events if id(event) not in told]
        if step.fingerprint == self._fingerprint:
            self._fingerprint_is_news = False
