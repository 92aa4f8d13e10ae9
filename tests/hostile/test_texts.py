"""Any text where a URL, a history or a job's args are expected: a sentence, or what was meant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durably import history
from durably.agents.registry import Registry
from durably.dispatch.requests import RunRequest, WakeRequest, read_args
from durably.errors import ConfigError, DurablyError, HistoryError
from durably.intake import JobIntake
from durably.ledger.columns import decoded, moment, timestamp
from durably.ledger.connect import database_for

TEXT = st.text(st.characters(codec=None), max_size=60)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(sorted(RunRequest.model_fields))


@example("postgresql://", "\n", "/%zz")
@example("postgresql://", "\ud800", "/%zz")
@given(
    st.sampled_from(["sqlite://", "sqlite:///", "postgresql://", "postgres://", ""]),
    TEXT,
    st.sampled_from(["", "@host/db", "@host:99999999/db", "?schema=", "?prepare=", "#", "/%zz"]),
)
def test_any_text_is_a_url_or_refused_in_a_sentence(scheme: str, text: str, rest: str) -> None:
    secret = "hunter2secret"
    for url in (f"{scheme}{text}{rest}", f"{scheme}u:{secret}@{text}{rest}"):
        try:
            database_for(url)
        except ConfigError as error:
            assert "\n" not in str(error).strip()
            if url.startswith(("postgres", "postgresql")):
                assert secret not in str(error), "a password is in no message"


@given(st.one_of(JSON.map(json.dumps), TEXT, st.binary(max_size=60)))
def test_any_value_is_a_history_or_refused(data: str | bytes) -> None:
    try:
        read = history.from_json(data)
    except HistoryError:
        return
    assert isinstance(read, list)


@given(JSON.filter(lambda value: not isinstance(value, dict)))
def test_args_that_are_no_object_are_refused(args: Any) -> None:
    with pytest.raises(ConfigError, match="args of this job"):
        read_args(args)


@given(
    st.dictionaries(FIELDS | TEXT, JSON, max_size=6),
    st.fixed_dictionaries({}, optional={"agent": TEXT, "key": TEXT, "prompt": TEXT}),
)
def test_any_args_of_a_job_are_a_request_or_refused(
    odd: dict[str, Any], usual: dict[str, Any]
) -> None:
    try:
        asked = read_args(odd | usual)
        if isinstance(asked, RunRequest):
            JobIntake(Registry()).new_run(asked)
        else:
            assert isinstance(asked, WakeRequest)
    except DurablyError as error:
        assert str(error)


@given(TEXT | JSON.map(json.dumps))
def test_a_json_column_is_read_or_is_no_json(text: str) -> None:
    try:
        found = decoded(text)
    except ValueError:
        return
    json.dumps(found, allow_nan=False)  # Whatever was read can be written again.


@given(TEXT | st.datetimes().map(lambda at: at.isoformat() + "+14:00"))
def test_any_text_in_a_time_column_is_some_time(text: str) -> None:
    at = moment(text)
    at.astimezone()
    assert len(timestamp(at)) == 27
