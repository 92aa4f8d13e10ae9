"""Every exception that durably raises, as one tree.

Owns the names and their meaning; who raises them is written beside each one.

    DurablyError
    ├── ConfigError           settings, URLs and options that cannot work
    │   └── UnknownAgent      an agent name that no registration answers to (permanent)
    ├── RunNotFound           no run has this key
    ├── EffectNotFound        no effect of the run has this call id
    ├── KeyConflict           the key belongs to a different agent, prompt or arguments
    ├── TransitionRefused     the lifecycle does not allow this now
    │   └── ThreadBusy        a run of the thread is going, and ``on_busy="reject"``
    ├── LeaseLost             another attempt owns the run; this one may not write
    ├── HistoryError          stored or imported history that cannot be read
    │   └── CorruptRecord     rows of a run that cannot be read, or don't fit together (permanent)
    ├── ResultNotSerializable a tool result or output that is not JSON (permanent)
    ├── NotDone               raised by a tool: nothing happened, safe to run again
    ├── StepFailed            raised inside a tool; one that does not catch it tells the model
    │   ├── OutcomeUnknown    nobody knows whether a step happened (``on_doubt="tell"``)
    │   ├── SignalTimeout     a signal did not come in time
    │   └── ChildFailed       a child run ended without an output
    ├── TransactionEnded      a transactional tool committed by itself (permanent)
    ├── ToolExited            a tool raised what would have ended its worker: SystemExit
    ├── RunFailed             raised by ``run.result()`` for a run that did not complete
    │   ├── RunDiscarded
    │   ├── RunCancelled
    │   └── RunSuspended      raised by ``app.run()``: the run waits, and says on what
    └── LedgerError           the database
        ├── LedgerUnavailable locked, full, restarting: the same write may work later
        ├── LedgerClosed      this application closed it
        ├── LedgerMoved       its runs are moved, or being moved, to another database
        ├── SchemaError       missing, newer than this version, or not a ledger
        └── LedgerCorrupt     not a database file, or a damaged one
"""

from __future__ import annotations

from collections.abc import Sequence

SHOWN_DAMAGE = 5
"""How many damaged columns `CorruptRecord` names in its text."""


class DurablyError(Exception):
    """Base of every error that durably raises on purpose."""


class ConfigError(DurablyError):
    """A setting, URL or option that cannot work; the message says what to change."""


class UnknownAgent(ConfigError):
    """No registered agent has this name. Permanent: retrying cannot help."""

    def __init__(self, name: str, known: list[str]) -> None:
        names = ", ".join(repr(k) for k in sorted(known)) or "none"
        super().__init__(f"No agent named {name!r} is registered. Registered: {names}.")
        self.name = name


class RunNotFound(DurablyError):
    """No run has this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"No run has the key {key!r}.")
        self.key = key


class EffectNotFound(DurablyError):
    """No effect of the run answers to this call id."""


class KeyConflict(DurablyError):
    """The key is taken by a run of a different agent, prompt or arguments."""


class TransitionRefused(DurablyError):
    """The lifecycle (section "Lifecycle" of docs/concepts.md) does not allow this now."""


class ThreadBusy(TransitionRefused):
    """A run of the thread is going, and the new one was not to wait: nothing was stored.

    Attributes:
        thread: the thread.
        key: the run that is going.
    """

    def __init__(self, thread: str, key: str, state: str) -> None:
        super().__init__(
            f"Thread {thread!r} is busy: its run {key!r} is {state}. Wait for it, or enqueue with "
            "another on_busy."
        )
        self.thread = thread
        self.key = key


class LeaseLost(DurablyError):
    """Another attempt owns the run, or the run is final; this attempt may not write.

    Raised at every fenced write. The message tells both sides: which attempt asked and what the
    ledger says.
    """


class HistoryError(DurablyError):
    """A message history that cannot be read; the message says where.

    Attributes:
        path: the place, such as ``[3].parts[0].content``; empty for the document itself.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(f"At {path}: {message}" if path else message)
        self.path = path


class CorruptRecord(HistoryError):
    """Rows of a run that cannot be read, or don't fit together. Permanent: they have to be mended.

    An attempt that meets them ends its run as ``discarded``, before it does anything.

    Attributes:
        key: the run's key.
        damage: what is wrong, one sentence for each column; each names its table.
    """

    def __init__(self, key: str, damage: Sequence[str]) -> None:
        said, left = "; ".join(damage[:SHOWN_DAMAGE]), len(damage) - SHOWN_DAMAGE
        more = f"; and {left} more" if left > 0 else ""
        super().__init__(
            f"Run {key!r} is damaged: {said}{more}. Mend it in the database, then retry the run."
        )
        self.key = key
        self.damage = tuple(damage)


class ResultNotSerializable(DurablyError):
    """A tool result or an output that cannot be written as JSON. Permanent."""


class NotDone(DurablyError):
    """Raise it from a tool to say: nothing happened, this call is safe to run again.

    The attempt fails and is retried with backoff; the effect is not in doubt.
    """


class StepFailed(DurablyError):
    """Raised by `durably.step`: it was denied, or somebody said that it failed; says why.

    A tool that does not catch it tells the model.
    """


class OutcomeUnknown(StepFailed):
    """Raised by `durably.step`: it may have happened, and its policy says to go on regardless."""


class SignalTimeout(StepFailed, TimeoutError):
    """Raised by `durably.wait_for_signal`: the signal did not come in time."""


class ChildFailed(StepFailed):
    """Raised by `durably.run_child`: the child ended without an output.

    Attributes:
        key: the child's key.
        state: ``discarded`` or ``cancelled``.
    """

    def __init__(self, key: str, state: str, why: str | None) -> None:
        super().__init__(f"Run {key!r} was {state}{f': {why}' if why else '.'}")
        self.key = key
        self.state = state


class TransactionEnded(DurablyError):
    """A transactional tool ended its transaction by itself. Permanent: it would do so again.

    What it wrote before that may be there, without the call's being recorded.
    """


class ToolExited(DurablyError):
    """A tool, or other code of an agent, raised what is no ``Exception``: ``sys.exit()`` does.

    It would have ended the worker, and every other run there. The attempt fails instead.
    """


class RunFailed(DurablyError):
    """The run ended, or stopped, without an output.

    Attributes:
        key: the run's key.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class RunDiscarded(RunFailed):
    """The run used up its attempts or met a permanent error."""


class RunCancelled(RunFailed):
    """The run was cancelled."""


class RunSuspended(RunFailed):
    """The run waits for a decision; raised only where nobody will wait for it."""


class LedgerError(DurablyError):
    """The database refused or could not be used."""


class LedgerUnavailable(LedgerError):
    """Locked, full or restarting: the same write may succeed later."""


class LedgerClosed(LedgerError):
    """This application closed the ledger, or has not opened it; waiting will not help."""


class LedgerMoved(LedgerError):
    """The runs of this ledger are in another database, or being moved (`durably transfer`).

    Also raised by the ledger that they are moved to, until all of them are there.
    """


class SchemaError(LedgerError):
    """The tables are missing, or were written by a newer version of durably."""


class LedgerCorrupt(LedgerError):
    """The file is not a SQLite database, or it is damaged."""
