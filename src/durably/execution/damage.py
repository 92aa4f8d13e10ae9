"""What an attempt finds of its run that cannot be read, or does not fit together. Pure.

Owns what needs no agent to be seen; what messages and outcomes say inside is the agents'.
"""

from __future__ import annotations

from collections.abc import Sequence

from durably.ledger.columns import Columns
from durably.lifecycle import EffectState
from durably.records import Effect, RunInput, RunRecord, StoredMessage

RESPONSE = "response"


def damage_of(
    run: RunRecord,
    run_input: RunInput,
    history: Sequence[StoredMessage],
    effects: Sequence[Effect],
) -> list[str]:
    """A sentence about each thing that is wrong; none if an attempt can go on from it."""
    return [
        *run.damage,
        *run_input.damage,
        *_of_history(history),
        *(said for effect in effects for said in _of_effect(effect, history)),
    ]


def _of_history(history: Sequence[StoredMessage]) -> list[str]:
    """Messages are numbered from 0, without a gap: a missing one would be asked for again."""
    for seq, message in enumerate(history):
        if message.seq != seq:
            return [f"durably_messages has no message {seq}, but a message {message.seq}"]
    return []


def _of_effect(effect: Effect, history: Sequence[StoredMessage]) -> list[str]:
    said = list(effect.damage)
    place = effect.position.response
    if not (0 <= place < len(history)) or history[place].kind != RESPONSE:
        # What answers it now would be taken for what answered another response.
        said.append(
            f"durably_effects has the call {effect.call_id}, but durably_messages no response "
            f"{place}"
        )
    if effect.result is None and effect.state in (EffectState.DONE, EffectState.DENIED):
        said.append(f"durably_effects.result of call {effect.call_id} is empty")
    if effect.result is not None:
        columns = Columns("durably_effects", {"result": effect.result}, f"call {effect.call_id}")
        columns.value("result")
        said += columns.damage
    return said
