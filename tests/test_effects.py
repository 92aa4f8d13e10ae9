"""What a tool declares about repeating it, and what it gets when it declares nothing."""

from __future__ import annotations

from typing import Any

import pytest

from durably import ConfigError, effects
from durably.effects import DEFAULT, EffectKind, EffectPolicy, as_policy, policy_of


def reconcile() -> None:
    return None


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        (effects.READ, EffectKind.READ),
        (effects.IDEMPOTENT, EffectKind.IDEMPOTENT),
        (effects.TRANSACTIONAL, EffectKind.TRANSACTIONAL),
        (effects.once(), EffectKind.ONCE),
    ],
)
def test_tool_gets_the_policy_that_it_declares(metadata: dict[str, Any], kind: EffectKind) -> None:
    policy = policy_of({**metadata, "theirs": 1})
    assert (policy.kind, policy.declared) == (kind, True)
    assert policy.records_intent == (kind is EffectKind.ONCE)


@pytest.mark.parametrize("metadata", [None, {}, {"theirs": 1}, {"annotations": None}])
def test_tool_that_declares_nothing_runs_at_most_once(metadata: dict[str, Any] | None) -> None:
    policy = policy_of(metadata)
    assert policy is DEFAULT
    assert (policy.kind, policy.on_doubt, policy.declared) == (EffectKind.ONCE, "ask", False)


def test_application_may_set_another_default() -> None:
    default = as_policy(effects.READ)
    assert policy_of(None, default) is default
    assert not default.declared, "the tool still has not said so itself"
    assert policy_of(effects.once(), default).kind is EffectKind.ONCE


@pytest.mark.parametrize("on_doubt", ["ask", "tell", "retry"])
def test_once_keeps_what_to_do_in_doubt(on_doubt: Any) -> None:
    assert policy_of(effects.once(on_doubt=on_doubt)).on_doubt == on_doubt
    assert policy_of(effects.once(reconcile=reconcile)).reconcile is reconcile


@pytest.mark.parametrize("on_doubt", ["", "Ask", "never", None, 3])
def test_once_refuses_what_it_does_not_know(on_doubt: Any) -> None:
    with pytest.raises(ConfigError, match="use 'ask', 'tell' or 'retry'"):
        effects.once(on_doubt=on_doubt)


@pytest.mark.parametrize("default", [{}, {"theirs": 1}, {"durably": "read"}])
def test_default_that_is_no_policy_is_refused(default: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"default_effect must be effects\.READ"):
        as_policy(default)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (policy_of(effects.READ), "read"),
        (policy_of(effects.once()), "once (ask)"),
        (policy_of(effects.once(on_doubt="tell")), "once (tell)"),
        (policy_of(effects.once(reconcile=reconcile)), "once (reconcile)"),
    ],
)
def test_policy_reads_as_people_say_it(policy: EffectPolicy, text: str) -> None:
    assert str(policy) == text


# --- MCP


@pytest.mark.parametrize(
    ("hints", "kind"),
    [
        ({"readOnlyHint": True}, EffectKind.READ),
        ({"idempotentHint": True}, EffectKind.IDEMPOTENT),
        ({"readOnlyHint": True, "idempotentHint": True}, EffectKind.READ),
        ({"readOnlyHint": False, "idempotentHint": True}, EffectKind.IDEMPOTENT),
        ({"readOnlyHint": False, "idempotentHint": False}, EffectKind.ONCE),
        ({"readOnlyHint": None, "idempotentHint": None}, EffectKind.ONCE),
        ({"destructiveHint": False}, EffectKind.ONCE),
        ({}, EffectKind.ONCE),
    ],
)
def test_annotations_of_an_mcp_tool_count_as_a_declaration(
    hints: dict[str, Any], kind: EffectKind
) -> None:
    policy = policy_of({"meta": None, "annotations": hints})
    assert policy.kind is kind
    assert policy.declared == (kind is not EffectKind.ONCE)


def test_what_is_declared_wins_over_annotations() -> None:
    metadata = {**effects.once(), "annotations": {"readOnlyHint": True}}
    assert policy_of(metadata).kind is EffectKind.ONCE
