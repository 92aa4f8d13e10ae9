"""How a command ends: its exit code and the sentence on stderr.

Owns which error is the user's (2), the run's (1) or ours (70); commands just raise.
"""

from __future__ import annotations

import os
import sys
import traceback

from durably.cli.text import clean
from durably.errors import DurablyError, RunFailed

FAILED = 1
"""A run did not complete, or doctor found a problem."""

REFUSED = 2
"""What was asked cannot be done: a wrong key, state, JSON, URL, agent, or an unusable ledger."""

INTERNAL = 70
"""A bug in durably; sysexits' EX_SOFTWARE."""

INTERRUPTED = 130
"""Ctrl-C; 128 + SIGINT, as shells have it."""

_debug = False


class Refused(DurablyError):
    """A command cannot do what was asked; the message is the sentence for stderr."""


def enable_debug(wanted: bool) -> bool:
    """Show tracebacks, or not, until told otherwise."""
    global _debug
    _debug = wanted
    return wanted


def debugging() -> bool:
    """True if the user asked for tracebacks: ``--debug``, or DURABLY_DEBUG in the environment."""
    return _debug or bool(os.environ.get("DURABLY_DEBUG"))


def report(error: BaseException) -> int:
    """Say on stderr what went wrong; returns the exit code."""
    if debugging():
        traceback.print_exception(error)
    match error:
        case KeyboardInterrupt():
            return INTERRUPTED
        case BrokenPipeError():
            return FAILED  # Whoever read our output has gone, as in `durably runs | head`.
        case RunFailed():
            return _say(error, FAILED)
        case DurablyError():
            return _say(error, REFUSED)
        case _:
            sentence = f"durably failed unexpectedly: {type(error).__name__}: {error}"
            hint = "" if debugging() else " (--debug shows where)"
            return _say(f"{sentence}{hint}", INTERNAL)


def flush(code: int) -> int:
    """Write out what was printed; returns the exit code, which may be another after that."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would try once more when it ends, and complain in its own way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return report(error)
    return code


def _say(what: object, code: int) -> int:
    print(f"Error: {clean(str(what))}", file=sys.stderr)
    return code
