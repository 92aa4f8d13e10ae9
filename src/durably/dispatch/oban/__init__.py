"""Dispatch by Oban: a job for each wake-up, in the queue of its run."""

from __future__ import annotations

from durably.dispatch.oban.dispatcher import ObanDispatcher
from durably.dispatch.oban.jobs import RunAgent

__all__ = ["ObanDispatcher", "RunAgent"]
