"""Queues: pausing, resuming and scaling them at run time, for every worker at once.

Owns what was decided for a queue; how many runs a worker executes without that is its own matter.
"""

from __future__ import annotations

from durably.errors import ConfigError
from durably.ledger.operations import Operation, execute, fetch, fetch_one
from durably.ledger.rows import queue_setting_from
from durably.records import QueueSetting

MAX_RUNS_AT_ONCE = 999_999
"""As many as `durably worker --queue NAME=LIMIT` takes."""


def pause(queue: str) -> Operation[QueueSetting]:
    """Let no attempt of the queue begin until `resume`; those under way go on.

    The queue may have no run yet; pausing it twice changes nothing.

    Raises:
        ConfigError: no queue can be called that.
    """
    _check_name(queue)
    yield from execute("pause_queue", queue=queue)
    return (yield from get_setting(queue))


def resume(queue: str) -> Operation[QueueSetting]:
    """Let attempts of the queue begin again; harmless if they may.

    Raises:
        ConfigError: no queue can be called that.
    """
    _check_name(queue)
    yield from execute("resume_queue", queue=queue)
    yield from execute("forget_queue", queue=queue)
    return (yield from get_setting(queue))


def scale(queue: str, limit: int | None) -> Operation[QueueSetting]:
    """Let every worker execute ``limit`` runs of the queue at once; None: each as it was started.

    Raises:
        ConfigError: no queue can be called that, or the limit is none.
    """
    _check_name(queue)
    _check_limit(limit)
    if limit is None:
        yield from execute("unscale_queue", queue=queue)
        yield from execute("forget_queue", queue=queue)
    else:
        yield from execute("scale_queue", queue=queue, runs_at_once=limit)
    return (yield from get_setting(queue))


def get_setting(queue: str) -> Operation[QueueSetting]:
    """What was decided for a queue; that nothing was, if there is no row."""
    row = yield from fetch_one("get_queue", queue=queue)
    return QueueSetting(queue) if row is None else queue_setting_from(row)


def list_settings() -> Operation[dict[str, QueueSetting]]:
    """Everything that was decided, by queue."""
    rows = yield from fetch("list_queue_settings")
    return {row["queue"]: queue_setting_from(row) for row in rows}


def _check_name(queue: str) -> None:
    if not queue.strip():
        raise ConfigError("The queue's name is empty.")
    if "\0" in queue or not _writable(queue):
        raise ConfigError(f"The queue's name {queue!r} holds what no database can store as text.")


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False  # Half a character: a surrogate.
    return True


def _check_limit(limit: int | None) -> None:
    if limit is not None and not 1 <= limit <= MAX_RUNS_AT_ONCE:
        raise ConfigError(
            f"{limit} runs at once: from 1 to {MAX_RUNS_AT_ONCE}; to stop a queue, pause it."
        )
