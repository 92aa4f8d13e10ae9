"""What `durably.retry` makes of the errors that the real clients raise over a real wire."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anthropic
import openai
import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError

from durably.retry import Verdict, classify
from support.sample import longer
from wire.provider import Provider, breaks, fails, hangs, odd, says
from wire.shop import PROTOCOLS, models

PROTOCOL = pytest.mark.parametrize("protocol", PROTOCOLS)

IN_A_MINUTE = format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True)


async def error_of(url: str, protocol: str, *, stream: bool = False, **options: Any) -> Exception:
    """What a request with the real client comes to."""
    model: Any = dict(models(url, **{"max_retries": 0, **options}))[protocol]
    agent = Agent(model)
    async with model.client:
        with pytest.raises(Exception) as caught:
            if stream:
                async with agent.run_stream("Hello") as answer:
                    await answer.get_output()
            else:
                await agent.run("Hello")
    return caught.value


def behind[E: BaseException](error: BaseException, kind: type[E]) -> E:
    """The error of this kind that led to another."""
    here: BaseException | None = error
    while here is not None and not isinstance(here, kind):
        here = here.__cause__
    assert here is not None, f"no {kind.__name__} behind {error!r}"
    return here


def both(error: Exception, kind: type[Exception]) -> list[Verdict]:
    """The verdicts about what pydantic-ai raises, and about the client's own error behind it."""
    return [classify(error), classify(behind(error, kind))]


@PROTOCOL
@pytest.mark.parametrize("status", [429, longer(500), longer(503), 529])
@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry-after": "17"}, 17, 17),
        ({"retry-after-ms": "1500"}, 1.5, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5, 1.5),
        ({"Retry-After": IN_A_MINUTE}, 0, 60),
        ({}, None, None),
    ],
    ids=["seconds", "milliseconds", "both", "date", "none"],
)
async def test_wait_that_a_provider_asks_for_is_read_however_it_is_written(
    provider: Provider,
    protocol: str,
    status: int,
    headers: dict[str, str],
    least: float | None,
    most: float | None,
) -> None:
    provider.will(fails(status), odd(headers=headers))
    error = await error_of(provider.url, protocol)
    client = openai if protocol != "anthropic" else anthropic
    assert isinstance(error, ModelHTTPError)
    for verdict in both(error, client.APIStatusError):
        assert verdict.kind == "transient" and str(status) in verdict.reason
        wait = verdict.retry_after_seconds
        if least is None or most is None:
            assert wait is None
        else:
            assert wait is not None and least <= wait <= most


@PROTOCOL
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "permanent"),
        *(longer(status, "permanent") for status in (401, 403, 404, 422)),
        (500, "transient"),
        *(longer(status, "transient") for status in (408, 409, 502, 504)),
    ],
)
async def test_status_that_the_clients_raise_decides(
    provider: Provider, protocol: str, status: int, kind: str
) -> None:
    provider.will(fails(status))
    error = await error_of(provider.url, protocol)
    client = openai if protocol != "anthropic" else anthropic
    assert [verdict.kind for verdict in both(error, client.APIStatusError)] == [kind] * 2


@PROTOCOL
@pytest.mark.parametrize("stream", [False, True])
async def test_refused_connections_and_timeouts_are_transient(
    provider: Provider, protocol: str, stream: bool
) -> None:
    client = openai if protocol != "anthropic" else anthropic
    with Provider(provider.log) as nobody:
        error = await error_of(nobody.url, protocol, stream=stream)
    verdicts = both(error, client.APIConnectionError)
    provider.will(hangs(20))
    error = await error_of(provider.url, protocol, stream=stream, timeout=0.5)
    verdicts += both(error, client.APITimeoutError)
    assert [verdict.kind for verdict in verdicts] == ["transient"] * 4


@PROTOCOL
async def test_stream_that_is_cut_is_transient(provider: Provider, protocol: str) -> None:
    provider.will(says("one two three four five six seven eight"), breaks("disconnect", 6))
    error = await error_of(provider.url, protocol, stream=True)
    assert classify(error).kind == "transient"


def openai_error() -> str:
    return 'data: {"error": {"message": "overloaded", "type": "server_error", "code": null}}\n\n'


def responses_error() -> str:
    return (
        "event: error\n"
        'data: {"type": "error", "sequence_number": 6, "code": "server_error", '
        '"message": "overloaded", "param": null}\n\n'
    )


def anthropic_error() -> str:
    return (
        "event: error\n"
        'data: {"type": "error", "error": {"type": "overloaded_error", '
        '"message": "Overloaded"}}\n\n'
    )


@pytest.mark.parametrize(
    ("protocol", "event"),
    list(zip(PROTOCOLS, (openai_error, responses_error, anthropic_error), strict=True)),
)
async def test_error_in_the_middle_of_a_stream_never_discards_a_run(
    provider: Provider, protocol: str, event: Callable[[], str]
) -> None:
    """Its status says 200: the answer had begun well."""
    provider.will(says("one two three four five six seven eight"), odd(chunk=6, event=event()))
    verdict = classify(await error_of(provider.url, protocol, stream=True))
    assert verdict.kind != "permanent" and "overloaded" in verdict.reason.lower()
    if protocol == "anthropic":
        assert verdict.kind == "transient"
