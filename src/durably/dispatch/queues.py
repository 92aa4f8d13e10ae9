"""What a worker's queues are set to: the limits it was started with, and what was decided since.

Owns the worker's view and who is told when it changes; the worker reads the ledger for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from durably.records import QueueSetting

log = logging.getLogger(__name__)

type OnChange = Callable[[str], None]
"""Called with a queue's name, in the worker's event loop; returns at once."""


class QueueSettings:
    """The queues that one worker serves, as `Durably.pause` and `scale` have them now.

    Args:
        own: how many runs of each queue at once the worker was started with.

    Attributes:
        names: the queues that it serves.
    """

    def __init__(self, own: Mapping[str, int]) -> None:
        self.names = tuple(own)
        self._own = dict(own)
        self._decided: dict[str, QueueSetting] = {name: QueueSetting(name) for name in own}
        self._listeners: list[OnChange] = []

    def limit(self, queue: str) -> int:
        """How many runs of a queue this worker executes at once, paused or not."""
        own = self._own[queue]
        return self._decided[queue].limit or own

    def paused(self, queue: str) -> bool:
        """True while no attempt of the queue may begin."""
        return self._decided[queue].paused

    @contextmanager
    def subscribe(self, listener: OnChange) -> Generator[None]:
        """Tell ``listener`` which queue has changed, until the block ends."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def apply(self, decided: Mapping[str, QueueSetting]) -> None:
        """Take over what the ledger says now; a queue that it does not name is as usual."""
        for queue in self.names:
            setting = decided.get(queue, QueueSetting(queue))
            if setting == self._decided[queue]:
                continue
            self._decided[queue] = setting
            paused = ", paused" if setting.paused else ""
            log.info("queue %s: %d runs at once%s", queue, self.limit(queue), paused)
            for listener in list(self._listeners):
                listener(queue)
