"""The moments at which a worker is killed: boundaries, as often as a run reaches them.

Owns counting and choosing them; which there are is said by `durably.boundaries`' callers.
"""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from durably.errors import ConfigError


class Strike(NamedTuple):
    """The n-th time that a run reaches a boundary."""

    name: str
    nth: int

    def __str__(self) -> str:
        return f"{self.name} #{self.nth}"


class Trace:
    """Notes every boundary that is reached, from any thread."""

    def __init__(self) -> None:
        self.reached: list[Strike] = []
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def note(self, name: str) -> Strike:
        """Count this one; returns it with its number."""
        with self._lock:
            self._counts[name] += 1
            strike = Strike(name, self._counts[name])
            self.reached.append(strike)
            return strike


_AT = re.compile(r"(?P<name>[a-z_]+(?::[a-z_:]+)?)\s*(?:#(?P<nth>[1-9][0-9]{0,5}))?")


def matcher(patterns: Sequence[str]) -> Callable[[Strike], bool]:
    """Which strikes are meant by ``checkpoint``, ``tool:after`` or ``tool:after#2``.

    Raises:
        ConfigError: one is none of these.
    """
    wanted: list[tuple[str, int | None]] = []
    for text in patterns:
        found = _AT.fullmatch(text.strip())
        if found is None:
            raise ConfigError(
                f"--at {text!r}: write a boundary, such as checkpoint, tool:after or tool:after#2."
            )
        wanted.append((found["name"], None if found["nth"] is None else int(found["nth"])))

    def matches(strike: Strike) -> bool:
        return not wanted or any(
            (strike.name == name or strike.name.startswith(f"{name}:"))
            and nth in (None, strike.nth)
            for name, nth in wanted
        )

    return matches


def chosen(
    reached: Sequence[Strike], patterns: Sequence[str], at_most: int | None, seed: int
) -> list[Strike]:
    """The strikes to carry out, in the order in which they are reached.

    Args:
        at_most: None: all that the patterns mean; else so many, one of each boundary first.

    Raises:
        ConfigError: the patterns mean none that was reached.
    """
    matches = matcher(patterns)
    meant = [strike for strike in reached if matches(strike)]
    if not meant:
        names = ", ".join(sorted({strike.name for strike in reached}))
        raise ConfigError(
            f"--at {', '.join(patterns)}: the run reaches no such boundary. It reaches: {names}."
        )
    if at_most is None or at_most >= len(meant):
        return meant
    draw = random.Random(seed)
    shuffled = draw.sample(meant, len(meant))
    seen: set[str] = set()
    first, more = list[Strike](), list[Strike]()
    for strike in shuffled:
        (more if strike.name in seen else first).append(strike)
        seen.add(strike.name)
    taken = set([*first, *more][:at_most])
    return [strike for strike in meant if strike in taken]
