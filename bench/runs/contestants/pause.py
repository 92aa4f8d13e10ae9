"""`agent.run` with hooks that wait a moment at each step: what waiting takes, for whatever it is.

Fifty runs that never wait are done one after the other. Fifty that do are taken up and put down at
every step, and each finds the processor's caches full of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from runs.contestant import Place, RunOne
from runs.contestants.hooks import Hooks, running
from runs.workload import Workload

PAUSE_SECONDS = 0.003
"""A commit that is shared with others takes about as long."""


class Pausing(Hooks):
    """The hooks of durably, which do nothing but wait where it saves."""

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> Any:
        response = await handler(request_context)
        await asyncio.sleep(PAUSE_SECONDS)
        return response


@asynccontextmanager
async def opened(place: Place, workload: Workload) -> AsyncGenerator[RunOne]:
    yield running(workload, Pausing())
