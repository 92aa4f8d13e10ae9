"""Which failures are worth another attempt, when it starts, and when nothing can have happened."""

from __future__ import annotations

import errno
import importlib
import math
import pickle
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import Agent, exceptions
from pydantic_ai.exceptions import (
    FallbackExceptionGroup,
    ModelAPIError,
    ModelHTTPError,
    UndrainedPendingMessagesError,
    UnexpectedModelBehavior,
    UsageLimitExceeded,
    UserError,
)
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably.errors import (
    ConfigError,
    HistoryError,
    LedgerUnavailable,
    NotDone,
    ResultNotSerializable,
    UnknownAgent,
)
from durably.retry import MAX_RETRY_AFTER_SECONDS, RetryPolicy, classify, nothing_was_sent

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HTTP_LIBRARIES = ["httpx", "httpx2", "httpcore", "httpcore2"]
"""The locked dependencies bring all four: providers' clients use one pair or the other."""


def caused(error: BaseException, cause: BaseException) -> BaseException:
    """``raise error from cause``"""
    try:
        raise error from cause
    except BaseException as raised:
        return raised


def while_handling(error: BaseException, first: BaseException) -> BaseException:
    """``error`` raised in ``except`` of ``first``"""
    try:
        try:
            raise first
        except BaseException:
            raise error  # noqa: B904
    except BaseException as raised:
        return raised


class Response:
    def __init__(self, status_code: int, **headers: str) -> None:
        self.status_code = status_code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class StatusError(Exception):
    """As the providers' SDKs have it."""

    def __init__(self, status_code: int, **headers: str) -> None:
        super().__init__(f"Error code: {status_code}")
        self.response = Response(status_code, **headers)


# --- the backoff


def test_delay_grows_exponentially_up_to_the_limit() -> None:
    policy = RetryPolicy(initial_seconds=2, factor=3, max_seconds=50, jitter=0)
    assert [policy.delay(n, lambda: 0.7) for n in (1, 2, 3, 4, 5)] == [2, 6, 18, 50, 50]


@given(
    st.integers(0, 5000),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1),
    st.floats(1, 10),
    st.floats(0, 1e6),
)
def test_jitter_only_shortens_and_no_number_of_failures_overflows(
    failures: int, random: float, jitter: float, factor: float, longest: float
) -> None:
    policy = RetryPolicy(2.0, factor, longest, jitter)
    whole = RetryPolicy(2.0, factor, longest, 0).delay(failures, lambda: 0)
    delay = policy.delay(failures, lambda: random)
    assert whole * (1 - jitter) - 1e-6 <= delay <= whole <= longest
    assert delay >= 0


def test_default_policy_waits_seconds_first_and_minutes_at_last() -> None:
    policy = RetryPolicy()
    assert 1.5 <= policy.delay(1, lambda: 0.999) <= policy.delay(1, lambda: 0) == 2
    assert policy.delay(50, lambda: 0) == 600


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial_seconds": -1},
        {"factor": 0.5},
        {"max_seconds": math.inf},
        {"jitter": 1.5},
        {"jitter": -0.1},
        {"factor": math.nan},
    ],
)
def test_policy_that_cannot_work_says_what_to_change(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"RetryPolicy\({next(iter(wrong))}=.*has to be"):
        RetryPolicy(**wrong)


# --- the verdict


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, "permanent") for status in (400, 401, 403, 404, 422)),
        *((status, "transient") for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)),
        *((status, "unknown") for status in (402, 405, 410, 413, 418, 451, 302)),
    ],
)
def test_status_decides_however_the_error_is_wrapped(status: int, kind: str) -> None:
    theirs = StatusError(status)
    for error in (
        ModelHTTPError(status, "m", {"error": "x"}),
        theirs,
        caused(ModelAPIError("m", "failed"), theirs),
        caused(RuntimeError("tool failed"), caused(ValueError("x"), theirs)),
        urllib.error.HTTPError("https://e.com", status, "x", {}, None),  # type: ignore[arg-type]
    ):
        # urllib's error is one of the network unless its status says otherwise.
        if not isinstance(error, urllib.error.HTTPError) or kind != "unknown":
            assert classify(error).kind == kind, error
    assert str(status) in classify(theirs).reason


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "transient"),
        (ConnectionResetError(), "transient"),
        (ConnectionRefusedError(), "transient"),
        (BrokenPipeError(), "transient"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "transient"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "transient"),
        (urllib.error.URLError("unreachable"), "transient"),
        (LedgerUnavailable("database is locked"), "transient"),
        (NotDone("card machine is off"), "transient"),
        (UserError("no API key"), "permanent"),
        (UndrainedPendingMessagesError("a kind of UserError"), "permanent"),
        (UsageLimitExceeded("too many tokens"), "permanent"),
        (UnknownAgent("x", []), "permanent"),
        (ResultNotSerializable("x"), "permanent"),
        (HistoryError("x"), "permanent"),
        (ConfigError("x"), "unknown"),
        (ValueError("x"), "unknown"),
        (UnexpectedModelBehavior("x"), "unknown"),
        (FileNotFoundError(2, "x"), "unknown"),
        (PermissionError(13, "x"), "unknown"),
        (OSError("x"), "unknown"),
        (KeyboardInterrupt(), "unknown"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, BaseException) else v,
)
def test_known_errors_have_their_verdict(error: BaseException, kind: str) -> None:
    verdict = classify(error)
    assert verdict.kind == kind
    assert verdict.reason.startswith(type(error).__name__)
    assert verdict.retry_after_seconds is None


@pytest.mark.parametrize(
    "name", ["ConnectError", "ReadTimeout", "RemoteProtocolError", "PoolTimeout"]
)
@pytest.mark.parametrize("library", HTTP_LIBRARIES)
def test_transport_errors_of_http_clients_are_transient(library: str, name: str) -> None:
    error = getattr(importlib.import_module(library), name)("x")
    assert classify(error).kind == "transient"
    assert classify(caused(ModelAPIError("m", "Connection error."), error)).kind == "transient"


CATEGORIES = {
    "ModelConnectionError": "transient",
    "ModelTimeoutError": "transient",
    "ModelOverloadedError": "transient",
    "ModelServerError": "transient",
    "ModelRateLimitError": "transient",
    "ModelRequestRejectedError": "permanent",
    "ModelAuthenticationError": "permanent",
    "ModelNotFoundError": "permanent",
}
"""Errors that newer versions of pydantic-ai raise where older ones have a status only."""


def test_categories_of_newer_versions_count_without_a_status() -> None:
    known = {name: kind for name, kind in CATEGORIES.items() if hasattr(exceptions, name)}
    found = {name: classify(getattr(exceptions, name)("m", "x")).kind for name in known}
    assert found == known


def test_outermost_error_that_says_anything_decides() -> None:
    assert classify(caused(UserError("x"), StatusError(503))).kind == "permanent"
    assert classify(caused(TimeoutError(), StatusError(400))).kind == "transient"


def test_error_that_was_merely_being_handled_never_discards_a_run() -> None:
    # A tool that had dealt with a 404 and then stumbled over something else.
    assert classify(while_handling(KeyError("x"), StatusError(404))).kind == "unknown"
    assert classify(while_handling(KeyError("x"), TimeoutError())).kind == "transient"
    hidden = while_handling(KeyError("x"), TimeoutError())
    hidden.__suppress_context__ = True
    assert classify(hidden).kind == "unknown"


def test_circular_chain_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert classify(first).kind == "unknown"
    assert not nothing_was_sent(first)


def test_group_is_permanent_only_if_all_in_it_are() -> None:
    no, busy, odd = ModelHTTPError(401, "a"), ModelHTTPError(503, "b"), ValueError("c")
    for errors, kind in (
        ([no, ModelHTTPError(404, "b")], "permanent"),
        ([no, busy], "transient"),
        ([no, odd], "unknown"),
        ([busy, odd], "transient"),
        ([ExceptionGroup("inner", [no]), no], "permanent"),
    ):
        verdict = classify(FallbackExceptionGroup("All models failed", errors))
        assert verdict.kind == kind
        assert all(str(e).splitlines()[0][:20] in verdict.reason for e in errors)


@pytest.mark.anyio
async def test_real_fallback_model_is_judged_by_all_its_models() -> None:
    def failing(status: int) -> FunctionModel:
        def respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
            raise ModelHTTPError(status, f"m{status}")

        return FunctionModel(respond)

    async def verdict(*statuses: int) -> str:
        model = FallbackModel(*map(failing, statuses))
        with pytest.raises(BaseException) as caught:
            await Agent(model).run("hi")
        return classify(caught.value).kind

    assert await verdict(401, 404) == "permanent"
    assert await verdict(401, 500) == "transient"


def test_reason_is_one_short_line() -> None:
    reason = classify(ValueError("first\n" + "second" * 1000)).reason
    assert reason == "ValueError: first"
    assert len(classify(ValueError("x" * 10_000)).reason) < 400
    assert classify(ValueError()).reason == "ValueError"


# --- Retry-After


def wait_of(error: BaseException) -> float | None:
    return classify(error, now=NOW).retry_after_seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        (" 30 ", 30.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("Fri, 01 May 2026 12:01:40 GMT", 100.0),
        ("Fri, 01 May 2026 14:01:40 +0200", 100.0),
        ("Fri May  1 12:01:40 2026", 100.0),
        ("Fri, 01 May 2026 11:00:00 GMT", 0.0),
        ("999999999", MAX_RETRY_AFTER_SECONDS),
        ("Fri, 01 May 2099 12:00:00 GMT", MAX_RETRY_AFTER_SECONDS),
    ],
)
@pytest.mark.parametrize("status", [408, 429, 500, 503, 529])
def test_retry_after_is_obeyed(status: int, value: str, seconds: float | None) -> None:
    theirs = StatusError(status, Retry_After=value)
    assert wait_of(theirs) == seconds
    # Older versions of pydantic-ai keep no headers; the provider's error behind has them.
    assert wait_of(caused(ModelHTTPError(status, "m"), theirs)) == seconds
    assert (
        wait_of(caused(RuntimeError("x"), caused(ModelHTTPError(status, "m"), theirs))) == seconds
    )


@pytest.mark.parametrize("status", [400, 402, 404])
def test_retry_after_of_a_status_that_is_not_worth_retrying_is_not(status: int) -> None:
    assert wait_of(StatusError(status, retry_after="30")) is None


def test_headers_are_found_on_the_error_itself_and_in_milliseconds() -> None:
    assert wait_of(StatusError(429, retry_after_ms="250", retry_after="1")) == 0.25
    bare = ModelHTTPError(429, "m")
    bare.headers = {"Retry-After": "7"}
    assert wait_of(bare) == 7
    assert wait_of(ModelHTTPError(429, "m")) is None


def test_headers_that_newer_versions_keep_are_read_also_after_pickling() -> None:
    error = ModelHTTPError(429, "m", headers={"Retry-After": "7"})
    assert wait_of(error) == 7
    assert wait_of(pickle.loads(pickle.dumps(error))) == 7


class StatedWait(Exception):
    """An error that states the wait itself, as newer versions of pydantic-ai do."""

    status_code = 503
    retry_after = 9


def test_a_wait_that_the_error_itself_states_is_read() -> None:
    assert wait_of(StatedWait()) == 9


def test_date_counts_from_the_clock_by_default() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    wait = classify(StatusError(429, retry_after=later)).retry_after_seconds
    assert wait is not None and 50 < wait <= 60


def test_group_waits_as_long_as_the_most_patient_asks() -> None:
    errors = [StatusError(429, retry_after="5"), StatusError(503, retry_after="60"), ValueError()]
    assert wait_of(FallbackExceptionGroup("x", errors)) == 60
    assert wait_of(FallbackExceptionGroup("x", [*errors[:1], StatusError(401)])) == 5


@pytest.mark.parametrize("library", HTTP_LIBRARIES[:2])
def test_real_response_of_an_http_client_is_read(library: str) -> None:
    http: Any = importlib.import_module(library)
    request = http.Request("POST", "https://example.com")
    response = http.Response(429, headers={"Retry-After": "12"}, request=request)
    with pytest.raises(http.HTTPStatusError) as caught:
        response.raise_for_status()
    assert wait_of(caught.value) == 12


def test_real_error_of_the_openai_sdk_is_read() -> None:
    openai: Any = importlib.import_module("openai")
    client: Any = importlib.import_module("httpx2")
    request = client.Request("POST", "https://example.com")
    response = client.Response(429, headers={"Retry-After": "12"}, request=request)
    error = openai.RateLimitError("slow down", response=response, body=None)
    assert (classify(error).kind, wait_of(error)) == ("transient", 12)
    assert wait_of(caused(ModelHTTPError(429, "m"), error)) == 12
    assert classify(openai.APIConnectionError(request=request)).kind == "transient"
    assert classify(openai.APITimeoutError(request=request)).kind == "transient"


# --- proof that nothing was sent


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def error_of(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("library", HTTP_LIBRARIES[:2])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-such-host.invalid"])
def test_real_refused_connection_proves_that_nothing_was_sent(library: str, host: str) -> None:
    http: Any = importlib.import_module(library)
    url = f"http://{host}:{closed_port()}/"

    async def post() -> None:
        async with http.AsyncClient(trust_env=False) as client:
            await client.post(url)

    def post_sync() -> None:
        with http.Client(trust_env=False) as client:
            client.post(url)

    for error in (error_of(lambda: anyio.run(post)), error_of(post_sync)):
        assert nothing_was_sent(error)
        assert classify(error).kind == "transient"


def test_bare_proof_is_proof() -> None:
    assert nothing_was_sent(ConnectionRefusedError())
    assert nothing_was_sent(socket.gaierror())
    refused = error_of(lambda: socket.create_connection(("127.0.0.1", closed_port()), timeout=5))
    assert nothing_was_sent(refused)


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        BrokenPipeError(),
        OSError("All connection attempts failed"),
        OSError(errno.EHOSTUNREACH, "x"),
        ssl.SSLError(),
        ValueError(),
        StatusError(503),
        ExceptionGroup("x", [ValueError()]),
        ExceptionGroup("x", [ConnectionRefusedError(), TimeoutError()]),
        caused(RuntimeError("whatever the tool made of it"), ConnectionRefusedError()),
        caused(ModelAPIError("m", "an SDK may have tried before"), ConnectionRefusedError()),
        # A second try that was refused says nothing about the first.
        while_handling(ConnectionRefusedError(), TimeoutError("of the first try")),
        caused(ConnectionRefusedError(), ConnectionResetError()),
    ],
    ids=repr,
)
def test_anything_less_proves_nothing(error: BaseException) -> None:
    assert not nothing_was_sent(error)


@pytest.mark.parametrize("library", HTTP_LIBRARIES)
def test_connect_errors_prove_nothing_by_themselves(library: str) -> None:
    http: Any = importlib.import_module(library)
    assert not nothing_was_sent(http.ConnectError("x"))
    assert not nothing_was_sent(http.ConnectTimeout("x"))
    assert not nothing_was_sent(caused(http.ConnectError("x"), TimeoutError()))
    assert not nothing_was_sent(caused(http.ReadTimeout("x"), ConnectionRefusedError()))
    refused = ExceptionGroup("x", [ConnectionRefusedError(), ConnectionRefusedError()])
    every = caused(OSError("All connection attempts failed"), refused)
    assert nothing_was_sent(caused(http.ConnectError("x"), every))
