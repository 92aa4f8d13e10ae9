"""Scripted models, as `durably.testing` has them, under the names that these tests use."""

from durably import RetryPolicy
from durably.testing import ScriptedModel, call, tool_texts

__all__ = ["NOW", "Script", "call", "tool_texts"]

NOW = RetryPolicy(initial_seconds=0.0, max_seconds=0.0, jitter=0.0)
"""Try again at once: these tests are about what is tried again, not when."""


class Script(ScriptedModel):
    """A scripted model that tests hold on to, and its agent as ``script.model``."""

    @property
    def model(self) -> ScriptedModel:
        return self

    @property
    def stream_model(self) -> ScriptedModel:
        return self
