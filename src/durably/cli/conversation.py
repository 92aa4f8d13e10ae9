"""A run's messages as a person reads them: who said what, which tools were called, how they ended.

Reads the stored JSON itself rather than pydantic-ai's classes, so that a history which this
version cannot load can still be looked at. Everything in it is foreign text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from durably.cli.asjson import parsed
from durably.cli.output import joined, moment_text, styled
from durably.cli.text import shorten
from durably.lifecycle import EffectState

if TYPE_CHECKING:
    from rich.text import Text

    from durably.records import Effect, StoredMessage

TEXT_CHARS = 2000
VALUE_CHARS = 800
ASIDE_CHARS = 200
"""How much is shown of what is said, of arguments and results, of thinking and instructions."""


class Entry(NamedTuple):
    """One thing said or done: who or what, and the text."""

    label: str
    body: Text


class Conversation:
    """Turns messages into entries, in order.

    Args:
        effects: the run's, for what became of each call.
        full: cut nothing short.
    """

    def __init__(self, effects: Sequence[Effect] = (), *, full: bool = False) -> None:
        self._effects = {effect.call_id: effect for effect in effects}
        self._inside: dict[str, list[Effect]] = {}
        for effect in effects:
            if effect.position.step:
                outer = effect.position._replace(step="").call_id
                self._inside.setdefault(outer, []).append(effect)
        self._full = full
        self._instructions: str | None = None
        self._said: str | None = None

    def entries(self, message: StoredMessage, *, last: bool = False) -> Iterator[Entry]:
        """The entries of one message.

        Args:
            last: nothing follows yet, so that results are only in the ledger.
        """
        body = parsed(message.body)
        if not isinstance(body, dict):
            yield self._entry(message.kind, str(body), TEXT_CHARS, "dim")
            return
        fields = cast("dict[str, Any]", body)
        yield from self._instructed(fields.get("instructions"))
        calls = 0
        for part in _parts(fields):
            if part.get("part_kind") == "tool-call":
                yield from self._call(part, f"{message.seq}.{calls}", last)
                calls += 1
            else:
                yield self._part(part)

    def prompt(self, prompt_json: str) -> Entry:
        """What a run was asked that has no message yet."""
        return self._entry("user", _content(parsed(prompt_json)), TEXT_CHARS, "bold")

    def output(self, output_json: str) -> Iterator[Entry]:
        """What a completed run answered, unless the last thing said was just that."""
        output = _content(parsed(output_json))
        if output != self._said:
            yield self._entry("output", output, TEXT_CHARS, "green")

    def _instructed(self, instructions: object) -> Iterator[Entry]:
        if isinstance(instructions, str) and instructions != self._instructions:
            self._instructions = instructions
            yield self._entry("system", instructions, ASIDE_CHARS, "dim")

    def _part(self, part: Mapping[str, Any]) -> Entry:
        content, tool = part.get("content"), part.get("tool_name")
        match part.get("part_kind"):
            case "user-prompt":
                return self._entry("user", _content(content), TEXT_CHARS, "bold")
            case "text":
                self._said = _content(content)
                return self._entry("assistant", self._said, TEXT_CHARS)
            case "system-prompt":
                return self._entry("system", _content(content), ASIDE_CHARS, "dim")
            case "thinking":
                return self._entry("thinking", _content(content), ASIDE_CHARS, "dim italic")
            case "tool-return":
                return self._entry("result", f"{tool} → {_content(content)}", VALUE_CHARS)
            case "retry-prompt":
                return self._entry("retry", f"{tool or ''} ← {_content(content)}", VALUE_CHARS)
            case kind:
                rest = {k: v for k, v in part.items() if v is not None and k != "part_kind"}
                return self._entry(str(kind), _json(rest), ASIDE_CHARS, "dim")

    def _call(self, part: Mapping[str, Any], call_id: str, last: bool) -> Iterator[Entry]:
        effect = self._effects.get(call_id)
        args = part.get("args")
        text = args if isinstance(args, str) else _json({} if args is None else args)
        call = styled(f"{part.get('tool_name')} {self._cut(text, VALUE_CHARS)}", "")
        if effect is None:
            yield Entry(f"call {call_id}", call)
            yield from self._steps(call_id)
            return
        state = (styled("  [", ""), styled(effect.state), styled("]", ""))
        became = styled(_circumstances(effect), "dim")
        yield Entry(f"call {effect.call_id}", joined(call, *state, became))
        if effect.error:
            yield self._entry("", effect.error, VALUE_CHARS, "red")
        if last and effect.result is not None:
            yield self._entry("", f"→ {_outcome(effect.result)}", VALUE_CHARS)
        yield from self._steps(call_id)

    def _steps(self, call_id: str) -> Iterator[Entry]:
        """The steps and waits inside a call, in the order in which they were recorded."""

        def order(effect: Effect) -> tuple[bool, datetime]:
            # The result of a step that is safe to repeat is recorded with the next write.
            return effect.state is EffectState.AWAITING, effect.started_at

        for step in sorted(self._inside.get(call_id, ()), key=order):
            name = styled(f"{step.position.step} {self._cut(step.args, ASIDE_CHARS)}", "")
            state = (styled("  [", ""), styled(step.state), styled("]", ""))
            yield Entry("  step", joined(name, *state, styled(_circumstances(step), "dim")))
            if step.error:
                yield self._entry("", step.error, VALUE_CHARS, "red")
            if step.result is not None:
                yield self._entry("", f"→ {_outcome(step.result)}", ASIDE_CHARS)

    def _entry(self, label: str, text: str, limit: int | None, style: str = "") -> Entry:
        return Entry(label, styled(self._cut(text, limit), style))

    def _cut(self, text: str, limit: int | None) -> str:
        return shorten(text, None if self._full else limit)


def _circumstances(effect: Effect) -> str:
    """How the ledger treats a call: its policy, whose it is, who settled it."""
    policy = f"{effect.policy} ({effect.on_doubt})" if effect.on_doubt else effect.policy
    facts = [policy, f"attempt {effect.attempt}"]
    if effect.of_wait:
        facts = [f"waits for a {effect.ask}"]
        if effect.expires_at is not None:
            facts.append(f"until {moment_text(effect.expires_at)}")
    if effect.asked:
        facts.append("waits for a person")
    if effect.resolved_by:
        facts.append(f"settled by {effect.resolved_by}")
    return f" {', '.join(facts)}"


def _outcome(envelope: str) -> str:
    """What a recorded result says; the envelope is that of ``durably.agents.recorded``."""
    match parsed(envelope):
        case {"return": {"return_value": value}}:
            return _content(value)
        case {"child": {"output": output}}:
            return _content(output)
        case {"child": {"state": state, **rest}}:
            return f"{state}: {rest.get('error', '')}".rstrip(": ")
        case {"retry": str(text)} | {"failed": str(text)} | {"timeout": str(text)}:
            return text
        case _:
            return envelope


def _parts(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = fields.get("parts")
    if not isinstance(parts, list):
        return []
    return [cast("dict[str, Any]", p) for p in cast("list[object]", parts) if isinstance(p, dict)]


def _content(content: object) -> str:
    """Text as it is; files by what they are; anything else as JSON."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        items = cast("list[object]", content)
        if any(isinstance(item, str) or _is_file(item) for item in items):
            return "\n".join(item if isinstance(item, str) else _item(item) for item in items)
    return "" if content is None else _json(cast("object", content))


def _is_file(item: object) -> bool:
    if not isinstance(item, dict):
        return False
    fields = cast("dict[str, Any]", item)
    return "kind" in fields and ("url" in fields or "data" in fields)


def _item(item: object) -> str:
    if not _is_file(item):
        return _json(item)
    file = cast("dict[str, Any]", item)
    if "url" in file:
        return f"[{file['kind']} {file['url']}]"
    return f"[{file['kind']} {file.get('media_type', '')}, {len(str(file['data'])):,} characters]"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
