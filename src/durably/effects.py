"""Effect policies: what repeating a tool call would do, as its author declares it.

Pure: reads pydantic-ai's tool ``metadata`` (a plain dict); the journal enforces the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal, cast, get_args

from durably.errors import ConfigError

METADATA_KEY = "durably"
"""The key under which a policy sits in a tool's ``metadata``."""

MAX_SECONDS = 100 * 365 * 86_400.0

OnDoubt = Literal["ask", "tell", "retry"]

OnExpiry = Literal["deny", "escalate", "wait"]


@dataclass(frozen=True, slots=True)
class Approval:
    """Which calls of a tool wait for a person before they run.

    Attributes:
        when: True: every call; or a function of the arguments, sync or async, called as
            ``when(args)`` with the validated arguments as a dict.
        within_seconds: how long somebody may take; None: for ever.
        on_expiry: what happens then: ``"deny"`` the call, ``"escalate"`` (tag the run, tell people
            again, and go on waiting), or ``"wait"``.
        escalate_queue: the queue in which an escalated run waits and goes on; None: its own.
    """

    when: bool | Callable[[dict[str, Any]], Any] = True
    within_seconds: float | None = None
    on_expiry: OnExpiry = "deny"
    escalate_queue: str | None = None


class EffectKind(StrEnum):
    """The policies (DESIGN: "Effects")."""

    READ = "read"
    IDEMPOTENT = "idempotent"
    ONCE = "once"
    TRANSACTIONAL = "transactional"
    WAITS = "waits"

    @property
    def runs_again(self) -> bool:
        """True where the tool may always run again from its start, so that it can wait inside."""
        return self in (EffectKind.READ, EffectKind.IDEMPOTENT, EffectKind.WAITS)


@dataclass(frozen=True, slots=True)
class Done:
    """What a ``reconcile`` function returns when the call did happen.

    Attributes:
        result: the tool's result, given to the model as if the tool had returned it.
    """

    result: Any = None


@dataclass(frozen=True, slots=True)
class EffectPolicy:
    """What the ledger does around one tool's calls.

    Attributes:
        kind: what repeating the call would do.
        on_doubt: for ``once``: what to do with a call that may have happened: ``"ask"`` a
            person, ``"tell"`` the model that the outcome is unknown, or ``"retry"`` it.
        reconcile: for ``once``: ``reconcile(ctx, call)``, sync or async, asked first. It returns
            ``effects.Done(result)`` if the call happened, raises or returns ``NotDone`` if it did
            not, and returns None if it cannot tell (then ``on_doubt`` decides).
        declared: False for the default that an undeclared tool gets.
        approval: which of its calls wait for a person first; None: those that pydantic-ai itself
            defers (``requires_approval``), for as long as it takes.
    """

    kind: EffectKind
    on_doubt: OnDoubt = "ask"
    reconcile: Callable[..., Any] | None = None
    declared: bool = True
    approval: Approval | None = None

    @property
    def records_intent(self) -> bool:
        """True where the ledger must know of the call before it runs."""
        return self.kind is EffectKind.ONCE

    def __str__(self) -> str:
        if self.kind is not EffectKind.ONCE:
            return str(self.kind)
        how = "reconcile" if self.reconcile else self.on_doubt
        return f"once ({how})"


def _metadata(policy: EffectPolicy) -> dict[str, Any]:
    return {METADATA_KEY: policy}


READ: dict[str, Any] = _metadata(EffectPolicy(EffectKind.READ))
"""Safe to repeat; nothing is recorded before it runs."""

IDEMPOTENT: dict[str, Any] = _metadata(EffectPolicy(EffectKind.IDEMPOTENT))
"""Safe to repeat with the same ``current_call().idempotency_key``."""

TRANSACTIONAL: dict[str, Any] = _metadata(EffectPolicy(EffectKind.TRANSACTIONAL))
"""Writes through ``current_call().transaction()`` commit together with the tool's result."""

WAITS: dict[str, Any] = _metadata(EffectPolicy(EffectKind.WAITS))
"""Its acts are `durably.step`s, and it may wait: `durably.sleep`, `wait_for_signal`, `run_child`.

It runs again from its start when the run goes on; steps and waits that are over are not repeated.
"""


def once(
    *,
    on_doubt: OnDoubt = "ask",
    reconcile: Callable[..., Any] | None = None,
    approve: bool | Callable[[dict[str, Any]], Any] = False,
    approve_within: float | timedelta | None = None,
    on_expiry: OnExpiry = "deny",
    escalate_queue: str | None = None,
) -> dict[str, Any]:
    """At most once: intent is committed before the tool runs, the outcome after it.

    Args:
        on_doubt: what to do when the outcome is unknown: ``"ask"``, ``"tell"`` or ``"retry"``.
        reconcile: see `EffectPolicy.reconcile`.
        approve, approve_within, on_expiry, escalate_queue: see `approved`.

    Returns:
        Metadata for ``@agent.tool(metadata=...)``.

    Raises:
        ConfigError: an option cannot work.
    """
    if on_doubt not in get_args(OnDoubt):
        raise ConfigError(f"on_doubt={on_doubt!r}: use 'ask', 'tell' or 'retry'.")
    declared = _metadata(EffectPolicy(EffectKind.ONCE, on_doubt, reconcile))
    if approve is False and approve_within is None:
        return declared
    return approved(
        declared,
        when=approve or True,
        within=approve_within,
        on_expiry=on_expiry,
        escalate_queue=escalate_queue,
    )


def approved(
    effect: Mapping[str, Any],
    *,
    when: bool | Callable[[dict[str, Any]], Any] = True,
    within: float | timedelta | None = None,
    on_expiry: OnExpiry = "deny",
    escalate_queue: str | None = None,
) -> dict[str, Any]:
    """An effect whose calls wait for a person's approval before they run.

    ``metadata=effects.approved(effects.IDEMPOTENT, when=lambda args: args["amount"] > 100)``

    Args:
        when: True: every call; or a function of the validated arguments that says which.
        within: how long somebody may take, in seconds or as a timedelta; default: for ever.
        on_expiry: what happens then: ``"deny"``, ``"escalate"`` or ``"wait"``; see `Approval`.
        escalate_queue: with ``"escalate"``: the queue that the run moves to, and goes on in.

    Raises:
        ConfigError: an option cannot work.
    """
    policy = effect.get(METADATA_KEY)
    if not isinstance(policy, EffectPolicy):
        raise ConfigError(
            "approved() takes effects.READ, IDEMPOTENT, TRANSACTIONAL, WAITS or once(...)."
        )
    if on_expiry not in get_args(OnExpiry):
        raise ConfigError(f"on_expiry={on_expiry!r}: use 'deny', 'escalate' or 'wait'.")
    if escalate_queue is not None and (on_expiry != "escalate" or not escalate_queue.strip()):
        raise ConfigError(
            f"escalate_queue={escalate_queue!r}: the name of a queue, with on_expiry='escalate'."
        )
    if when is False:
        raise ConfigError("when=False approves nothing: leave approved() out.")
    seconds = within.total_seconds() if isinstance(within, timedelta) else within
    if seconds is not None and not 0 < seconds <= MAX_SECONDS:  # also refuses NaN
        raise ConfigError(f"within={seconds}: more than 0 seconds, 100 years at most.")
    within_seconds = None if seconds is None else float(seconds)
    approval = Approval(when, within_seconds, on_expiry, escalate_queue)
    return _metadata(replace(policy, approval=approval))


DEFAULT = EffectPolicy(EffectKind.ONCE, declared=False)
"""What an undeclared tool gets: assume that repeating it would cost money."""


def policy_of(metadata: Mapping[str, Any] | None, default: EffectPolicy = DEFAULT) -> EffectPolicy:
    """The policy that a tool's metadata declares, or ``default``.

    An MCP tool's annotations count as a declaration: ``readOnlyHint`` is READ, ``idempotentHint``
    is IDEMPOTENT (Model Context Protocol, "Tool annotations"); anything else is the default.
    """
    declared = (metadata or {}).get(METADATA_KEY)
    if isinstance(declared, EffectPolicy):
        return declared
    hints = (metadata or {}).get("annotations")
    if isinstance(hints, Mapping):
        hinted = cast("Mapping[str, Any]", hints)
        if hinted.get("readOnlyHint"):
            return EffectPolicy(EffectKind.READ)
        if hinted.get("idempotentHint"):
            return EffectPolicy(EffectKind.IDEMPOTENT)
    return default


def as_policy(effect: Mapping[str, Any] | EffectPolicy) -> EffectPolicy:
    """The policy in what a user wrote for ``default_effect=``: metadata or a policy.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(effect, EffectPolicy):
        return replace(effect, declared=False)
    declared = effect.get(METADATA_KEY)
    if not isinstance(declared, EffectPolicy):
        raise ConfigError(
            "default_effect must be effects.READ, effects.IDEMPOTENT, effects.TRANSACTIONAL, "
            "effects.WAITS or effects.once(...)."
        )
    return as_policy(declared)
