"""An agent's fingerprint at every request: cheap, and never an old one."""

import hashlib
import json
from typing import Any

from pydantic_ai.messages import InstructionPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.test import TestModel
from pydantic_ai.tools import ToolDefinition

from durably.agents.fingerprint import Fingerprints


def parameters(
    schema: dict[str, Any],
    *,
    name: str = "look",
    description: str = "Look.",
    said: str = "Be kind.",
) -> ModelRequestParameters:
    tool = ToolDefinition(name=name, description=description, parameters_json_schema=schema)
    return ModelRequestParameters(
        function_tools=[tool],
        instruction_parts=[
            InstructionPart(content=said, dynamic=False),
            InstructionPart(content="It is noon.", dynamic=True),
        ],
    )


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def schema_of(kind: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"n": {"type": kind}}}


def test_it_is_what_earlier_attempts_recorded() -> None:
    """Whatever is remembered: a ledger holds fingerprints that another process has taken."""
    now, text = Fingerprints().take(TestModel(), parameters(schema_of("integer")))
    assert json.loads(text) == {
        "instructions": digest(["Be kind."]),
        "model": "test:test",
        "tools": {"look": digest(["Look.", schema_of("integer")])},
    }
    assert text == now.to_json()


def test_an_agent_that_stays_the_same_is_hashed_once() -> None:
    known = Fingerprints()
    first = known.take(TestModel(), parameters(schema_of("integer")))
    second = known.take(TestModel(), parameters(schema_of("integer")))
    assert first[0] is second[0] and first[1] is second[1]


def test_whatever_changes_is_seen_at_the_next_request() -> None:
    """Also a schema that is changed in place, as a tool's ``prepare`` function may do."""
    known, schema = Fingerprints(), schema_of("integer")
    before, _ = known.take(TestModel(), parameters(schema))
    schema["properties"]["n"]["type"] = "string"
    changed, text = known.take(TestModel(), parameters(schema))
    assert changed.changes_since(before) == {"tools_changed": ["look"]}
    assert text == changed.to_json() == Fingerprints().take(TestModel(), parameters(schema))[1]

    for other in (
        parameters(schema, description="Look twice."),
        parameters(schema, name="see"),
        parameters(schema, said="Be brief."),
    ):
        assert known.take(TestModel(), other) == Fingerprints().take(TestModel(), other)
        assert known.take(TestModel(), other)[0] != changed
    assert known.take(TestModel(), parameters(schema), ["look"])[0].tools == {}
