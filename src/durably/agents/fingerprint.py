"""What an agent is at one moment (instructions, tools, model), and how two moments differ.

Owns the comparison; what a difference means for a run is its ``on_change`` policy's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.tools import ToolDefinition

from durably.errors import HistoryError


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The parts of an agent that a model can notice, as short hashes.

    Attributes:
        instructions: of the static instructions; dynamic ones change by design.
        tools: of each function tool's schema and description, by name; their order is not a change.
        model: provider and name.
    """

    instructions: str
    tools: dict[str, str]
    model: str

    def to_json(self) -> str:
        """As stored with the attempt."""
        return json.dumps(
            {"instructions": self.instructions, "model": self.model, "tools": self.tools},
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> Fingerprint:
        """Read what `to_json` wrote.

        Raises:
            HistoryError: it is something else.
        """
        try:
            data = json.loads(text)
            instructions, tools, model = (data[n] for n in ("instructions", "tools", "model"))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise HistoryError(f"a recorded fingerprint is damaged: {error!r}.") from error
        if not isinstance(tools, dict):
            raise HistoryError("a recorded fingerprint is damaged: its tools are no object.")
        return cls(instructions, cast("dict[str, str]", tools), model)

    def changes_since(self, before: Fingerprint) -> dict[str, Any]:
        """What is different now, in words that an event can carry; empty if nothing is."""
        changes: dict[str, Any] = {}
        if self.instructions != before.instructions:
            changes["instructions"] = "changed"
        if self.model != before.model:
            changes["model"] = {"before": before.model, "after": self.model}
        added = sorted(set(self.tools) - set(before.tools))
        removed = sorted(set(before.tools) - set(self.tools))
        both = set(self.tools) & set(before.tools)
        changed = sorted(name for name in both if self.tools[name] != before.tools[name])
        for what, names in (("added", added), ("removed", removed), ("changed", changed)):
            if names:
                changes[f"tools_{what}"] = names
        return changes


class _Hashed:
    """A value whose hash is known, with a copy of it, as whoever has it may change it."""

    def __init__(self, value: object) -> None:
        self._copy = _copied(value)
        self.digest = _digest(value)

    def is_of(self, value: object) -> bool:
        return value == self._copy


class Fingerprints:
    """Takes one agent's fingerprint at every request, of which hardly anything is ever news."""

    def __init__(self) -> None:
        self._instructions = _Hashed([])
        self._tools: dict[str, _Hashed] = {}
        self._last = Fingerprint("", {}, "")
        self._text = self._last.to_json()

    def take(
        self, model: Model, parameters: ModelRequestParameters, ignored_tools: Collection[str] = ()
    ) -> tuple[Fingerprint, str]:
        """The fingerprint of the agent behind one model request, and the same as it is stored.

        Args:
            ignored_tools: stand-ins that durably itself added.
        """
        static: list[object] = [
            p.content for p in parameters.instruction_parts or [] if not p.dynamic
        ]
        if not self._instructions.is_of(static):
            self._instructions = _Hashed(static)
        tools = {
            tool.name: self._tool_digest(tool)
            for tool in parameters.function_tools
            if tool.name not in ignored_tools
        }
        now = Fingerprint(self._instructions.digest, tools, f"{model.system}:{model.model_name}")
        if now != self._last:
            self._last, self._text = now, now.to_json()
        return self._last, self._text

    def _tool_digest(self, tool: ToolDefinition) -> str:
        shown: list[object] = [tool.description, tool.parameters_json_schema]
        known = self._tools.get(tool.name)
        if known is None or not known.is_of(shown):
            known = self._tools[tool.name] = _Hashed(shown)
        return known.digest


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _copied(value: object) -> object:
    """A copy of what JSON is made of; anything else is left as it is."""
    if isinstance(value, dict):
        return {name: _copied(each) for name, each in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_copied(each) for each in cast("list[object]", value)]
    return value
