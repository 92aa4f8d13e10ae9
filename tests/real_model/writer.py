"""The application as it is deployed: ``durably worker --app real_model.writer:make``.

Its agent asks the model at ``MODEL_URL``; its ledger is DURABLY_URL's.
"""

from __future__ import annotations

import os

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
from pydantic_ai.providers.openai import OpenAIProvider

from durably import Durably, RetryPolicy

TOKENS = 80


def make() -> Durably:
    """The application."""
    client = AsyncOpenAI(
        base_url=f"{os.environ['MODEL_URL']}/v1", api_key="none", max_retries=0, timeout=1200
    )
    model = OpenAIChatModel("gemma-3-270m", provider=OpenAIProvider(openai_client=client))
    settings = OpenAIChatModelSettings(max_tokens=TOKENS, temperature=0)
    app = Durably()
    retry = RetryPolicy(initial_seconds=1, max_seconds=1)
    app.register(Agent(model, name="writer", model_settings=settings), stream=True, retry=retry)
    return app
