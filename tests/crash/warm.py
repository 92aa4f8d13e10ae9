"""Builds what every process would build anew: schemas of messages, usage and prompts.

Imported by the server that forks; opens no file and starts no thread or event loop.
"""

from pathlib import Path

from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.usage import RunUsage

from crash.scenarios import MIXED
from crash.world import World
from durably import history
from durably.agents.codec import decode_prompt, encode_output, encode_prompt, encode_result
from durably.agents.usage import usage_from, usage_to_json

_asked = ModelRequest(parts=[UserPromptPart("Hello?")])
history.from_json(history.to_json([_asked, ModelResponse(parts=[TextPart("Hello.")])]))
decode_prompt(encode_prompt("Hello?"))
encode_output("agent", "Hello.")
encode_result("tool", "Hello.")
usage_from({})
usage_to_json(RunUsage())
MIXED.app(World(Path("nowhere")))
