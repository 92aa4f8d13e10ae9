"""Whether a failed attempt is worth another one, and when.

Owns the classification of errors and the backoff; counting failures and writing the due time are
left to the ledger. Pure: errors of other libraries are known by shape and name, not by import.
"""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, cast

from durably.errors import (
    ConfigError,
    HistoryError,
    LedgerUnavailable,
    NotDone,
    ResultNotSerializable,
    TransactionEnded,
    UnknownAgent,
)
from durably.wording import text_of

MAX_RETRY_AFTER_SECONDS = 86_400.0
"""A provider's Retry-After is obeyed up to a day; a longer one is a mistake or malice."""

TRANSIENT_STATUS = frozenset({408, 409, 425, 429, *range(500, 600)})
PERMANENT_STATUS = frozenset({400, 401, 403, 404, 422})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    The delay after the n-th failure is ``min(max_seconds, initial_seconds * factor**(n-1))``, of
    which a random share of up to ``jitter`` is taken off. So ``max_seconds`` is never exceeded,
    ``jitter=1`` is what the AWS Architecture Blog calls full jitter and ``jitter=0.5`` equal
    jitter ("Exponential Backoff And Jitter", 2015).

    Attributes:
        initial_seconds: the delay after the first failure.
        factor: how much longer each further one is.
        max_seconds: no delay is longer.
        jitter: from 0, none, to 1.
    """

    initial_seconds: float = 2.0
    factor: float = 2.0
    max_seconds: float = 600.0
    jitter: float = 0.25

    def __post_init__(self) -> None:
        for name, least, most in (
            ("initial_seconds", 0.0, math.inf),
            ("factor", 1.0, math.inf),
            ("max_seconds", 0.0, math.inf),
            ("jitter", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not least <= value <= most or math.isinf(value):  # also refuses NaN
                limit = f"from {least:g} to {most:g}" if most < math.inf else f"at least {least:g}"
                raise ConfigError(f"RetryPolicy({name}={value!r}): has to be {limit}.")

    def delay(self, failures: int, random: Callable[[], float]) -> float:
        """Seconds to wait after this many failures; ``random`` returns from 0 to below 1."""
        try:
            longest = self.initial_seconds * self.factor ** max(failures - 1, 0)
        except OverflowError:
            longest = self.max_seconds
        return min(longest, self.max_seconds) * (1 - self.jitter * random())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an error says about another attempt.

    Attributes:
        kind: ``permanent`` discards at once; ``transient`` and ``unknown`` are retried, and count.
        retry_after_seconds: not before that, if a provider asked for it.
        reason: one line for people.
    """

    kind: Literal["transient", "permanent", "unknown"]
    retry_after_seconds: float | None
    reason: str


def classify(error: BaseException, now: datetime | None = None) -> Verdict:
    """Say whether another attempt can help.

    The first error in the chain of causes that says anything decides, the outermost one first:
    pydantic-ai wraps a provider's error, which wraps the transport's. What was merely being
    handled (``__context__``) can make an error transient but never permanent: it may be an
    earlier problem that the code had dealt with. A group is permanent only if all in it are, and
    waits as long as the most patient of them asks.

    Args:
        error: what ended the attempt.
        now: for a Retry-After that is a date; the system's clock by default.
    """
    return _classify(error, now or datetime.now(UTC), frozenset())


def nothing_was_sent(error: BaseException) -> bool:
    """Whether the error proves that no request left this machine.

    Proof is a connection that was refused or a name that was not resolved, raised as such or
    as the ``ConnectError`` of httpx, httpx2 or httpcore. Everything along the way has to agree:
    a refused second try, made while handling a timeout of the first, proves nothing. No proof:
    a connect timeout (a proxy may have taken the request), an error of a provider's SDK (it retries
    by itself and shows the last failure only), and any other OSError.
    """
    chain = list(_everything_behind(error))
    return any(_is_proof(e) for e in chain) and all(_is_proof(e) or _only_wraps(e) for e in chain)


# --- classification


def _classify(error: BaseException, now: datetime, seen: frozenset[int]) -> Verdict:
    seen |= {id(error)}
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return _classify_group([_classify(e, now, seen) for e in group.exceptions], group)
    reason = _describe(error)
    status = _status_of(error)
    if status in PERMANENT_STATUS:
        return Verdict("permanent", None, f"HTTP {status}: {reason}")
    if status in TRANSIENT_STATUS:
        return Verdict("transient", _retry_after(error, now), f"HTTP {status}: {reason}")
    if _is_permanent(error):
        return Verdict("permanent", None, reason)
    if _is_transient(error):
        return Verdict("transient", None, reason)
    return _classify_cause(error, now, seen) or Verdict("unknown", None, reason)


def _classify_cause(error: BaseException, now: datetime, seen: frozenset[int]) -> Verdict | None:
    explicit = error.__cause__ is not None
    behind = error.__cause__ if explicit or error.__suppress_context__ else error.__context__
    if behind is None or id(behind) in seen:
        return None
    verdict = _classify(behind, now, seen)
    decides = verdict.kind == "transient" or (verdict.kind == "permanent" and explicit)
    return verdict if decides else None


def _classify_group(verdicts: list[Verdict], error: BaseExceptionGroup[BaseException]) -> Verdict:
    reason = f"{_describe(error)}: {'; '.join(v.reason for v in verdicts)}"
    if all(v.kind == "permanent" for v in verdicts):
        return Verdict("permanent", None, reason)
    waits = [v.retry_after_seconds for v in verdicts if v.retry_after_seconds is not None]
    transient = any(v.kind == "transient" for v in verdicts)
    return Verdict("transient" if transient else "unknown", max(waits, default=None), reason)


def _describe(error: BaseException) -> str:
    text = text_of(error).strip()
    first = text.splitlines()[0] if text else ""
    return f"{type(error).__name__}: {first[:300]}" if first else type(error).__name__


def _status_of(error: BaseException) -> int | None:
    """The HTTP status, wherever the common clients keep it."""
    if not isinstance(error, Exception):
        return None  # The code of a SystemExit is none of HTTP's.
    response = _attribute(error, "response")
    for holder, name in (
        (error, "status_code"),  # pydantic-ai, openai, anthropic
        (response, "status_code"),  # httpx, requests
        (error, "status"),  # aiohttp
        (error, "code"),  # urllib, google
    ):
        value = _attribute(holder, name)
        if isinstance(value, int) and 100 <= value < 600:
            return int(value)
    return None


def _attribute(holder: object, name: str) -> Any:
    """An attribute of another library's error; None where it has none, or cannot say."""
    try:
        return getattr(holder, name, None)
    except Exception:
        return None


_PERMANENT = (UnknownAgent, ResultNotSerializable, HistoryError, TransactionEnded)
_PERMANENT_NAMES = frozenset(
    {
        "pydantic_ai.exceptions.UserError",
        "pydantic_ai.exceptions.UsageLimitExceeded",
        # What newer versions make of a provider that answers "no" without an HTTP status.
        "pydantic_ai.exceptions.ModelRequestRejectedError",
    }
)

# NotDone: the tool itself says that trying again is safe.
_TRANSIENT = (TimeoutError, ConnectionError, socket.gaierror, LedgerUnavailable, NotDone)
_TRANSIENT_NAMES = frozenset(
    {
        "pydantic_ai.exceptions.ModelConnectionError",
        "pydantic_ai.exceptions.ModelRateLimitError",
        "pydantic_ai.exceptions.ModelRequestTimeout",
        "pydantic_ai.exceptions.ModelServerError",
        "pydantic_ai.exceptions.ModelUnavailableError",
        "urllib.error.URLError",
    }
)
# Names that mean the same in every library that has such a class: openai and anthropic, httpx,
# httpcore, aiohttp, requests, urllib3. Their subclasses count too.
_TRANSIENT_CLASSES = frozenset(
    {"APIConnectionError", "ClientConnectionError", "ConnectionError", "NetworkError"}
    | {"NewConnectionError", "RemoteProtocolError", "Timeout", "TimeoutError"}
    | {"TimeoutException", "TransportError"}
)
# Other errors of the operating system, such as a missing file, say nothing about the network.
_NETWORK_NUMBERS = frozenset(
    {errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH}
)


def _names(error: BaseException) -> Iterator[tuple[str, str]]:
    for cls in type(error).__mro__:
        yield f"{cls.__module__}.{cls.__qualname__}", cls.__name__


def _is_permanent(error: BaseException) -> bool:
    return isinstance(error, _PERMANENT) or any(
        qualified in _PERMANENT_NAMES for qualified, _ in _names(error)
    )


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, _TRANSIENT):
        return True
    if isinstance(error, OSError) and error.errno in _NETWORK_NUMBERS:
        return True
    return any(
        qualified in _TRANSIENT_NAMES or name in _TRANSIENT_CLASSES
        for qualified, name in _names(error)
    )


# --- Retry-After


def _retry_after(error: BaseException, now: datetime) -> float | None:
    """Seconds that the provider asked to wait, from this error or one that it wraps.

    pydantic-ai's ModelHTTPError keeps the headers only in newer versions; the provider's own
    error behind it has them in all.
    """
    seen: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        for holder in (_attribute(here, "response"), here):
            wait = _read_headers(_attribute(holder, "headers"), now)
            if wait is not None:
                return wait
        stated = _attribute(here, "retry_after")
        if isinstance(stated, int | float) and math.isfinite(stated):
            return _cap(stated)
        here = here.__cause__
    return None


def _read_headers(headers: Any, now: datetime) -> float | None:
    try:
        fields = {str(name).lower(): str(value) for name, value in headers.items()}
    except Exception:  # They are none, or of a kind that nobody knows.
        return None
    milliseconds = _number(fields.get("retry-after-ms"))
    if milliseconds is not None:  # OpenAI and Anthropic: the same, more precisely
        return _cap(milliseconds / 1000)
    text = fields.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return None if seconds is None else _cap(seconds)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return _cap(((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _cap(seconds: float) -> float:
    return min(max(float(seconds), 0.0), MAX_RETRY_AFTER_SECONDS)


# --- proof that nothing was sent


def _everything_behind(error: BaseException) -> Iterator[BaseException]:
    """The error and all that led to it, also what ``from None`` hides: httpcore uses it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        here = waiting.pop()
        if here is None or id(here) in seen:
            continue
        seen.add(id(here))
        yield here
        waiting += [here.__cause__, here.__context__]
        if isinstance(here, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", here).exceptions


def _is_proof(error: BaseException) -> bool:
    return isinstance(error, ConnectionRefusedError | socket.gaierror)


def _only_wraps(error: BaseException) -> bool:
    if type(error) is OSError:
        # anyio's, when it has tried every address of a name; the tries are behind it.
        return error.errno is None and text_of(error) == "All connection attempts failed"
    if isinstance(error, BaseExceptionGroup):
        return True
    return any(
        cls.__name__ == "ConnectError"
        and cls.__module__.split(".")[0] in {"httpx", "httpx2", "httpcore", "httpcore2"}
        for cls in type(error).__mro__
    )
