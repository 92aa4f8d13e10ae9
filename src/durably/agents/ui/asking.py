"""What a chat front end asks for: the last message of a user, in a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_ai.messages import ModelMessage, ModelRequest, UserContent, UserPromptPart

from durably.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Asked:
    """What shall become a run.

    Attributes:
        thread: the chat.
        message: the id of the user's message: sent again, it means the same run.
        prompt: what it says.
        again: the answer to it shall be made again.
    """

    thread: str
    message: str
    prompt: str | Sequence[UserContent]
    again: bool = False


def last_prompt[M](
    load: Callable[[Sequence[M]], Sequence[ModelMessage]], said: Sequence[M]
) -> str | Sequence[UserContent]:
    """What the user says in the last message.

    Args:
        load: an adapter's way to read its protocol's messages.

    Raises:
        pydantic.ValidationError: it holds what the protocol does not.
        ConfigError: it is no user's, or holds what no user says.
    """
    try:
        messages = load(said)
    except ValidationError:
        raise
    except ValueError as error:
        raise ConfigError(f"The last message cannot be read: {error}.") from error
    last = messages[-1] if messages else None
    prompts: list[str | Sequence[UserContent]] = []
    if isinstance(last, ModelRequest):
        prompts = [part.content for part in last.parts if isinstance(part, UserPromptPart)]
    if not prompts:
        raise ConfigError(
            "The last message is no user's. Calls that wait are decided at "
            "/api/runs/KEY/approve, deny and answer."
        )
    if len(prompts) == 1:
        return prompts[0]
    return [item for p in prompts for item in ([p] if isinstance(p, str) else p)]


def request(prompt: str | Sequence[UserContent]) -> ModelMessage:
    """What a user says, as a message."""
    return ModelRequest(parts=[UserPromptPart(prompt)])
