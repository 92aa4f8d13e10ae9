"""Stand-ins for tools that a deploy removed while a run still has calls of them.

Owns one moment: the replay of the last saved response. A recorded result must find its call, and
a call that never ran is told that its tool is gone. Being the toolset around the others, it is
also where a tool's own answer is seen before pydantic-ai makes something else of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_ai import ModelRetry, RunContext
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import ToolsetTool, WrapperToolset
from pydantic_core import SchemaValidator, core_schema

from durably.agents.recorded import mark_as_answer

if TYPE_CHECKING:
    from durably.agents.attempt import AttemptState

_any_object = SchemaValidator(core_schema.dict_schema(core_schema.str_schema()))


@dataclass
class WithStandIns(WrapperToolset[Any]):
    """The agent's tools, plus stand-ins while the saved response is replayed."""

    state: AttemptState

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        tools = await self.wrapped.get_tools(ctx)
        if self.state.replay is None:
            return tools
        missing = self._missing(set(tools))
        self.state.stand_ins.update(missing)
        return {**tools, **{name: self._stand_in(name) for name in missing}}

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        if name in self.state.stand_ins and tool.toolset is self:
            return f"The tool {name!r} no longer exists, so this call did not happen."
        try:
            return await self.wrapped.call_tool(name, tool_args, ctx, tool)
        except ModelRetry as answer:
            mark_as_answer(answer)
            raise

    def _missing(self, present: set[str]) -> set[str]:
        """Tools that the saved response calls and the agent had then, but has no more."""
        response, last = self.state.replay, self.state.journal.last_fingerprint
        if response is None or last is None:
            return set()
        called = {call.tool_name for call in response.tool_calls}
        return (called & set(json.loads(last)["tools"])) - present

    def _stand_in(self, name: str) -> ToolsetTool[Any]:
        definition = ToolDefinition(name=name, parameters_json_schema={"type": "object"})
        return ToolsetTool(
            toolset=self, tool_def=definition, max_retries=1, args_validator=_any_object
        )
