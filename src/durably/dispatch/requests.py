"""What a job's args ask for: to wake a run, or, from another language, to make one.

Owns the contract with whoever inserts jobs (docs/postgres.md); making the run is the intake's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from durably.errors import ConfigError
from durably.records import NewRun, RunInput, RunRecord


class WakeRequest(BaseModel):
    """Args of a job that durably inserted itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: Annotated[str, Field(min_length=1)]


class RunRequest(BaseModel):
    """Args of a job that asks for a run; the options mean what they mean to `Durably.enqueue`.

    Attributes:
        prompt: text, or a list of parts as pydantic-ai writes them in JSON.
        budget: limits by the names that `durably.Budget` has for them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    agent: Annotated[str, Field(min_length=1)]
    key: Annotated[str, Field(min_length=1)]
    prompt: str | list[JsonValue]
    args: dict[str, JsonValue] | None = None
    queue: str | None = None
    priority: int | None = None
    max_attempts: int | None = None
    delay: float = 0.0
    scheduled_at: AwareDatetime | None = None
    tags: list[str] | None = None
    meta: dict[str, JsonValue] | None = None
    thread: str | None = None
    on_busy: str = "queue"
    budget: dict[str, JsonValue] | None = None
    stream: bool | None = None


class Intake(Protocol):
    """The application's rules for new runs, as jobs of other languages meet them."""

    def new_run(self, request: RunRequest) -> NewRun:
        """The run that is asked for.

        Raises:
            ConfigError, ResultNotSerializable: an option, or the prompt, cannot be.
        """
        ...

    def check_same(self, new: NewRun, existing: RunRecord, asked: RunInput) -> None:
        """Refuse a key that already means something else.

        Raises:
            KeyConflict: the run under this key has another agent, prompt, args or thread.
        """
        ...


def read_args(args: object) -> WakeRequest | RunRequest:
    """Understand a job's args: an object, if whoever inserted it knew what they did.

    Raises:
        ConfigError: they are none that durably takes; one sentence says what is wrong.
    """
    given: Mapping[str, Any] = cast("Mapping[str, Any]", args) if isinstance(args, Mapping) else {}
    kind = RunRequest if "agent" in given or "prompt" in given else WakeRequest
    try:
        return kind.model_validate(args)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'args'}: {e['msg'].lower()}" for e in error.errors()
        )
        raise ConfigError(
            f"The args of this job are none that durably takes: {wrong}. They are agent, key and "
            "prompt, and enqueue's options."
        ) from error
