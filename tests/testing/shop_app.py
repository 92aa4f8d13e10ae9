"""An application that is killed in a process of its own: its tool writes to a file what it did."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic_ai import Agent

from durably import Durably, current_call, effects
from durably.testing import ScriptedModel, call

CHARGES = "SHOP_CHARGES"
"""Names the file, in the environment."""

agent = Agent(ScriptedModel(call("charge", cents=5), "Paid."), name="cashier")


@agent.tool_plain(metadata=effects.once())
def charge(cents: int) -> str:
    with Path(os.environ[CHARGES]).open("a") as file:
        file.write(f"{current_call().idempotency_key} {os.getpid()}\n")
    print("charged", flush=True)
    return "payment 7"


def make_app(url: str) -> Durably:
    return Durably(url, agents=[agent])


def make_app_by_environment() -> Durably:
    return Durably(agents=[agent])


def make_other_app(url: str) -> Durably:
    return Durably("sqlite:///elsewhere.db", agents=[agent])
