"""durably, until the model is asked: with what pydantic-ai does before its first request."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from queues.contestant import Started
from queues.contestants.durably import Runs, running


@asynccontextmanager
async def opened(url: str, started: Started) -> AsyncGenerator[Runs]:
    async with running(url, started, None) as runs:
        yield runs
