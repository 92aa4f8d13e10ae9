"""The story: turns the runs' events, and the kills, into lines and rows on the screen.

Owns the words; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from durably.demo.approvals import Request
from durably.demo.screen import Screen
from durably.demo.tickets import Answer
from durably.demo.traps import Sprung
from durably.records import Event

MOMENTS = {
    "charge": "in the middle of a charge for {}: the provider has made it, the ledger cannot know",
    "refund": "in the middle of a refund for {}: the provider has made it, the ledger cannot know",
    "between-steps": "between two steps of {}",
    "approved": "between the approval of a refund for {} and the refund: it may have been paid",
}

KILLED, SAVED, ASKED, QUIET = "bold red", "green", "yellow", "dim"


class Story:
    """What there is to tell about the runs.

    Args:
        workers: names of the workers, by their ids in the ledger; filled as they come.
        oban: whether Oban starts the attempts.
    """

    def __init__(self, screen: Screen, workers: Mapping[str, str], *, oban: bool) -> None:
        self._screen = screen
        self._workers = workers
        self._rescued = ", Oban has a new job for it" if oban else ""
        self._in_doubt: dict[tuple[str, str], bool] = {}

    def killed(
        self, name: str, trap: Sprung, held: Sequence[str], in_doubt: dict[tuple[str, str], bool]
    ) -> None:
        """A worker was killed.

        Args:
            held: the runs that it was working on.
            in_doubt: the calls that were under way, and whether they did happen.
        """
        self._in_doubt.update(in_doubt)
        say = self._screen.say
        say(f"{name} killed with SIGKILL {MOMENTS[trap.name].format(trap.ticket)}", KILLED)
        for key in held:
            self._screen.rows[key].last = "its worker is dead"
        others = [key for key in held if key != trap.ticket]
        if others:
            say(f"{name} was also working on {', '.join(others)}", QUIET)

    def tell(self, event: Event) -> None:
        """One event of a run."""
        key, data = event.run_key, event.data
        row = self._screen.rows[key]
        row.attempt = event.attempt
        match event.kind:
            case "claimed":
                row.state, row.last = "executing", ""
                row.worker = self._workers.get(data["worker"], "")
                if event.attempt > 1:
                    self._screen.say(f"{key} goes on, attempt {event.attempt}, {row.worker}", QUIET)
            case "step":
                row.last = "model answered"
            case "effect":
                self._effect(key, data["call_id"], data["tool"], data["state"])
            case "rescued":
                row.state = data["state"]
                said = f"{key} rescued: the lease of {row.worker} is over{self._rescued}"
                self._screen.say(said, SAVED)
                row.worker, row.last = "", "rescued"
            case "suspended":
                row.state, row.worker = "suspended", ""
                self._screen.say(f"{key} suspended: it waits for a person, in no worker", ASKED)
            case "failed" | "discarded":
                row.state, row.last = str(event.kind), str(data.get("error", ""))
                self._screen.say(f"{key} {event.kind}: {data.get('error', '')}", KILLED)
            case "approved" | "denied":
                how = SAVED if event.kind == "approved" else KILLED
                self._screen.say(f"{key} {data['tool']} {event.kind} by {data['by']}", how)
            case "completed" | "cancelled":
                row.state, row.worker = str(event.kind), ""
            case _:
                row.last = event.kind.replace("_", " ")

    def answered(self, key: str, answer: Answer) -> None:
        """A run has its output."""
        self._screen.rows[key].last = answer.outcome
        self._screen.say(f"{key} {answer.outcome}: {answer.summary}")

    def asked(self, request: Request) -> None:
        """A call waits for approval."""
        self._screen.say(f"{request.ticket.id} asks for approval: {request}", ASKED)

    def decided(self, key: str, call_id: str, tool: str, payment_id: str | None) -> None:
        """The operator looked at the provider's record and settled a call."""
        self._in_doubt.pop((key, call_id), None)
        found = (
            f"the provider has it as {payment_id}: done, not repeated"
            if payment_id
            else "the provider has nothing: run it again"
        )
        self._screen.say(f"{key} in doubt → operator resolves {tool}: {found}", SAVED)

    def _effect(self, key: str, call_id: str, tool: str, state: str) -> None:
        self._screen.rows[key].last = f"{tool} {state.replace('_', ' ')}"
        happened = self._in_doubt.get((key, call_id))
        if happened is None:
            return
        if state == "done":
            found = "knows it, not repeated" if happened else "does not know it, made now"
            self._screen.say(f"{key} in doubt → {tool} reconciled: the provider {found}", SAVED)
        elif state == "in_doubt":
            self._screen.say(f"{key} in doubt: did {tool} happen? Only a person can say", ASKED)
