"""The search: every state that can be reached, breadth first, so that what it finds is shortest.

Owns exhaustiveness, traces, and what "left alone" means: steps that are no faults and no person's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from protocol.model import PEOPLE, Action, Size, State, start, steps
from protocol.promises import ACROSS_EVERY_STEP, AT_REST, IN_EVERY_STATE

type Origin = tuple[State, Action] | None


@dataclass(frozen=True)
class Broken:
    """A promise that does not hold, and the shortest way there."""

    promise: str
    trace: list[Action]

    def __str__(self) -> str:
        lines = [f"  {number:2}  {action}" for number, action in enumerate(self.trace, 1)]
        return "\n".join([self.promise, *lines])


@dataclass
class Explored:
    """Everything that was reached.

    Attributes:
        size, first: of the world that was searched, and where it began.
        origins: of each state, from where and by what it was first reached.
        steps: how many steps there are between them.
        broken: the first promise that did not hold; the search ends there.
    """

    size: Size
    first: State
    origins: dict[State, Origin]
    steps: int = 0
    broken: Broken | None = None

    def trace(self, state: State) -> list[Action]:
        """The shortest way to a state."""
        way: list[Action] = []
        origin = self.origins[state]
        while origin is not None:
            state, action = origin
            way.append(action)
            origin = self.origins[state]
        return way[::-1]


def explore(size: Size, seen: Callable[[State, Action, State], None] | None = None) -> Explored:
    """Reach every state, until a promise does not hold or none is left.

    Args:
        seen: told of each step between two states, in the order of the search.
    """
    first = start(size)
    found = Explored(size, first, {first: None})
    todo = deque([first])
    left_alone: dict[State, list[State]] = {}
    while todo:
        state = todo.popleft()
        for promise in IN_EVERY_STATE:
            if not promise(size, state):
                found.broken = Broken(promise.__name__, found.trace(state))
                return found
        must = left_alone[state] = []
        for action, after in steps(size, state):
            if after == state:
                continue
            found.steps += 1
            if seen is not None:
                seen(state, action, after)
            for holds in ACROSS_EVERY_STEP:
                if not holds(state, action, after):
                    found.broken = Broken(holds.__name__, [*found.trace(state), action])
                    return found
            if not action.is_fault and action.name not in PEOPLE:
                must.append(after)
            if after not in found.origins:
                found.origins[after] = (state, action)
                todo.append(after)
    found.broken = _broken_at_rest(size, found, left_alone)
    return found


def _broken_at_rest(
    size: Size, found: Explored, left_alone: dict[State, list[State]]
) -> Broken | None:
    """Left alone, every state leads to rest, whatever order things happen in; and rest is good."""
    for state, after in left_alone.items():  # In the order in which they were reached.
        if not after:
            for promise in AT_REST:
                if not promise(size, state):
                    return Broken(promise.__name__, found.trace(state))
    try:
        TopologicalSorter(left_alone).prepare()
    except CycleError as error:
        cycle: list[State] = error.args[1]
        return Broken("left_alone_it_comes_to_rest", found.trace(cycle[0]))
    return None
