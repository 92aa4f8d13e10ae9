"""The user's own count of what their tools did to the world outside, before and after a run.

Owns calling it and what more, or less, than usual means; the count itself is the user's.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from durably.crashtest.judge import CallReport, Finding
from durably.crashtest.strikes import Strike
from durably.errors import ConfigError

ALL = ""
"""The name of a count that is not about one tool."""

type Counts = dict[str, int]


class Probe:
    """Asks the user's function, in this process.

    Args:
        name: as it was given.
        count: returns an int, or a dict of tool names to ints; sync or async.
    """

    def __init__(self, name: str, count: Callable[[], Any]) -> None:
        self.name = name
        self._count = count
        self._runner = asyncio.Runner()

    def __call__(self) -> Counts:
        """The counts now.

        Raises:
            ConfigError: it raised, or returned something else.
        """
        try:
            found = self._count()
            if inspect.isawaitable(found):
                found = self._runner.run(_awaited(found))
        except Exception as error:
            raise ConfigError(
                f"--probe {self.name} raised {type(error).__name__}: {error}"
            ) from error
        if _is_count(found):
            return {ALL: found}
        if isinstance(found, Mapping):
            counts = dict(cast("Mapping[Any, Any]", found))
            if all(isinstance(tool, str) and _is_count(n) for tool, n in counts.items()):
                return counts
        raise ConfigError(
            f"--probe {self.name} returned {found!r}: let it return how often something happened, "
            "or a dict of tool names to such numbers."
        )

    def close(self) -> None:
        """Let go of the loop that async probes ran on."""
        self._runner.close()


async def _awaited(value: Any) -> Any:
    return await value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def grown(before: Counts, after: Counts) -> Counts:
    """How much more there is of everything."""
    names = {**before, **after}
    return {name: after.get(name, 0) - before.get(name, 0) for name in names}


def judge_probe(
    usual: Counts, here: Counts, calls: Sequence[CallReport], at: Strike
) -> list[Finding]:
    """What the world outside says that the ledger cannot know.

    Args:
        usual: by how much the counts grow in an undisturbed run; ``here``: in this one.
    """
    found: list[Finding] = []
    for name in {**usual, **here}:
        more = here.get(name, 0) - usual.get(name, 0)
        about = [call for call in calls if name in (ALL, call.tool.partition("/")[0])]
        if more > 0:
            found += _too_often(name, more, [c for c in about if c.repeated], at)
        elif more < 0 and not any(call.doubt == "the model was told" for call in about):
            what = f"{name} happened" if name else "it happened"
            text = f"Outside, {what} {-more} times less than in the undisturbed run."
            found.append(Finding("probe", at, text, name or None))
    return found


def _too_often(name: str, more: int, repeated: Sequence[CallReport], at: Strike) -> list[Finding]:
    times = "once more" if more == 1 else f"{more} times more"
    if not repeated:
        what = f"{name} happened" if name else "it happened"
        text = f"Outside, {what} {times} than in the undisturbed run, and no call ran again."
        return [Finding("probe", at, text, name or None)]
    if any(_may_act_again(call) for call in repeated):
        return []
    found: list[Finding] = []
    for call in repeated:
        kind = call.policy.upper() if " " not in call.policy else call.policy
        text = (
            f"{call.tool} is declared {kind} and is not: it ran again, and outside it happened "
            f"{times} than in the undisturbed run."
        )
        found.append(Finding("probe", at, text, call.tool, call.call))
    return found


def _may_act_again(call: CallReport) -> bool:
    """True where more of it outside is what the policy says, or nobody could know better."""
    return call.policy == "once (retry)" or call.doubt == "again: it was cut off in the middle"
