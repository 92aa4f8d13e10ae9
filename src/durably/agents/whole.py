"""Whether a response is all that the model said, or the stream that it came in ended before it.

Owns how that is told from what pydantic-ai makes of a stream; asking again is the attempt's retry.
"""

from __future__ import annotations

from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import ModelRequestContext


def check_whole(response: ModelResponse, request: ModelRequestContext) -> None:
    """Refuse a response whose stream was cut off without an error.

    A connection that somebody on the way closes politely looks like the end of the response: the
    clients of providers raise nothing, and half a message would be saved, and acted on.

    Raises:
        ConnectionError: the provider has not said that the response was over.
    """
    if _was_cut(response, request):
        name = response.model_name or request.model.model_name
        raise ConnectionError(
            f"The stream of {name!r} ended before its response did: the provider has not said why "
            "it ended. What came of it is not used, and the model is asked again."
        )


def _was_cut(response: ModelResponse, request: ModelRequestContext) -> bool:
    if response.state not in ("complete", "incomplete"):
        return False  # It was stopped here, or is to be continued.
    if response.finish_reason == "content_filter":
        return False  # A refusal says so in its own way.
    if (response.provider_details or {}).get("finish_reason"):
        return False  # In the provider's own words, which pydantic-ai may have no word for.
    match response.provider_name:
        case "anthropic":
            return True  # Long answers come in streams, whether anybody asked for one or not.
        case "openai" if request.streaming:
            # Servers that merely speak OpenAI's protocol may leave out why a response ended, and
            # pydantic-ai then takes it for whole. Who also leaves out the usage can say so with
            # `openai_chat_streaming_requires_finish_reason=False` in the model's profile.
            said = request.model.profile.get("openai_chat_streaming_requires_finish_reason")
            return said is not False and not response.usage.has_values()
        case _:
            return response.state == "incomplete" and response.finish_reason is None
