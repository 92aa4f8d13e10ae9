"""What a run's rows say to pydantic-ai: its history, which recorded outcomes have to fit.

Owns that an attempt finds out before it does anything; which columns hold JSON at all is
`execution.damage`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse

from durably.agents import recorded
from durably.agents.codec import decode_prompt
from durably.agents.earlier import conversation
from durably.agents.exact import json_name, parse_json
from durably.agents.fingerprint import Fingerprint
from durably.agents.history import message_from_json
from durably.errors import CorruptRecord, HistoryError
from durably.execution.journal import Journal
from durably.records import Effect, StoredMessage


def load_stored(journal: Journal) -> tuple[list[ModelMessage], list[ModelMessage]]:
    """What earlier runs of its thread left, and the run's own history.

    Raises:
        CorruptRecord: some of it, or of what else an attempt goes on from, cannot be read.
    """
    run, damage = journal.run, list[str]()
    before: list[ModelMessage] = []
    try:
        before = list(conversation(journal.before))
    except HistoryError as error:
        damage.append(f"what earlier runs of its thread left cannot be read ({error})")
    messages = [_message(row, damage) for row in journal.history]
    if not damage:
        for effect in journal.effects:
            damage += _of_effect(effect, messages)
    if not messages:
        _try(damage, "durably_inputs.prompt", lambda: decode_prompt(journal.input.prompt))
    if (last := journal.last_fingerprint) is not None:
        _try(damage, "durably_attempts.fingerprint", lambda: Fingerprint.from_json(last))
    if damage:
        raise CorruptRecord(run.key, damage)
    # From here on they are pydantic-ai's: their JSON would be held for as long as the run goes on.
    journal.history.clear()
    return before, messages


def _message(row: StoredMessage, damage: list[str]) -> ModelMessage:
    try:
        message = message_from_json(row.body)
        if message.kind != row.kind:
            raise HistoryError(f"it is no {row.kind}.")
        return message
    except HistoryError as error:
        damage.append(f"durably_messages.body of message {row.seq}: {error}".rstrip("."))
        return ModelRequest(parts=[])


def _of_effect(effect: Effect, messages: Sequence[ModelMessage]) -> list[str]:
    said: list[str] = []
    position, response = effect.position, messages[effect.position.response]
    calls = response.tool_calls if isinstance(response, ModelResponse) else []
    # A text that ends the run may have an effect too: it stands after the calls.
    ids = [*(call.tool_call_id for call in calls), ""]
    if not 0 <= position.call < len(ids):
        said.append(
            f"durably_effects has the call {effect.call_id}, but response {position.response} "
            f"asks for {len(calls)}"
        )
    elif not position.step and effect.tool_call_id not in ("", ids[position.call]):
        said.append(
            f"durably_effects.tool_call_id of call {effect.call_id} is "
            f"{effect.tool_call_id[:40]!r}, but response {position.response} says "
            f"{ids[position.call][:40]!r}"
        )
    if effect.approved and effect.args:
        # Those that somebody has approved are what the tool is given.
        column = f"durably_effects.args of call {effect.call_id}"
        _try(said, column, lambda: _object(effect.args))
    if (envelope := effect.result) is not None:
        column = f"durably_effects.result of call {effect.call_id}"
        _try(said, column, lambda: recorded.check(envelope))
    return said


def _object(text: str) -> None:
    if not isinstance(found := parse_json(text), dict):
        raise HistoryError(f"arguments are an object, not {json_name(found)}")
    json.dumps(found, ensure_ascii=False).encode()  # Half a character can be given to no tool.


def _try(damage: list[str], column: str, read: Callable[[], object]) -> None:
    """Read what a column holds, or say that it cannot be read."""
    try:
        read()
    except (HistoryError, ValueError, TypeError, KeyError) as error:
        what = error if isinstance(error, HistoryError) else f"{type(error).__name__}: {error}"
        damage.append(f"{column}: {what}".rstrip("."))
