"""What whoever follows a run needs besides its events: the messages that steps made durable.

Owns that each is read once; what is made of them is the follower's.
"""

from __future__ import annotations

from typing import Any

from durably.records import Event, StoredMessage
from durably.run import Run


class NewMessages:
    """The messages that the steps of a run made durable."""

    def __init__(self, run: Run[Any]) -> None:
        self._run = run
        self._unread: int | None = None
        self._found: dict[int, StoredMessage] = {}

    async def of(self, event: Event) -> list[StoredMessage]:
        """Those of a step, in order; of any other event none."""
        wanted: list[int] = (event.data.get("messages") or []) if event.kind == "step" else []
        if not wanted:
            return []
        if self._unread is None or max(wanted) >= self._unread:
            # Read once, also where many steps are already past.
            first = min(wanted) if self._unread is None else self._unread
            found = await self._run.messages(after=first - 1)
            self._found |= {message.seq: message for message in found}
            self._unread = max(self._found, default=first - 1) + 1
        return [self._found.pop(seq) for seq in wanted if seq in self._found]
