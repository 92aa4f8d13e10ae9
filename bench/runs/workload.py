"""What every contestant is given to do: the same script of model answers and tool calls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Policy = Literal["read", "idempotent", "once", "transactional"]


@dataclass
class Workload:
    """Runs of one shape. Not frozen: commits are counted with ever more steps.

    Attributes:
        name: in the results.
        policy: what the tools declare, where a contestant knows the difference.
        steps: model requests that ask for tools; one more gives the final answer.
        tools: calls that each of them asks for, in parallel.
        size: bytes of text in each response and of each tool's result.
        latency: seconds that the model takes for an answer.
        concurrency: runs under way at once.
        runs: measured ones.
        seconds: after which no more of them are started.
    """

    name: str
    policy: Policy = "read"
    steps: int = 10
    tools: int = 1
    size: int = 1000
    latency: float = 0.0
    concurrency: int = 50
    runs: int = 100
    seconds: float = 10.0

    @property
    def requests(self) -> int:
        return self.steps + 1

    @property
    def warm_up(self) -> int:
        """Runs before the measured ones: enough to fill caches and pools."""
        return 1 if self.steps > 20 else min(self.concurrency + 1, 20)

    @cached_property
    def text(self) -> str:
        """Such a text of so many bytes, which no codec finds easier than another."""
        words = "The order was delivered on Monday; two lamps, one of them broken. "
        return (words * (self.size // len(words) + 1))[: self.size]


def asked(step: int, call: int) -> str:
    """The id of a tool call, from which the scripted model knows where a run is."""
    return f"call_{step}_{call}"


def step_of(call_id: str) -> int:
    return int(call_id.split("_")[1])
