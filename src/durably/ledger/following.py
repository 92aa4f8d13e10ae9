"""Following a clock that a test moves: whoever waits for a time looks again when it has moved.

Owns nothing but that; who moves it, and what else is moved along, is the clock's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from durably.ledger.database import Clock, MovableClock


def following(clock: Clock | None, moved: Callable[[], None]) -> AbstractContextManager[None]:
    """Within the block, call ``moved`` after each move of the clock, if it is one that moves."""

    @contextmanager
    def around(_: float) -> Generator[None]:
        yield
        moved()

    return clock.around_moves(around) if isinstance(clock, MovableClock) else nullcontext()
