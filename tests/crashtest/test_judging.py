"""The rules by which `durably crashtest` judges, without processes: what differs, what is drawn."""

import pytest

from durably import ConfigError
from durably.crashtest.compare import differences
from durably.crashtest.judge import CallReport
from durably.crashtest.probe import ALL, Probe, grown, judge_probe
from durably.crashtest.strikes import Strike, chosen

AT = Strike("tool:after", 1)


def call(tool: str, policy: str, ran: int, doubt: str | None = None) -> CallReport:
    return CallReport("run", "1.0", tool, policy, 1, ran, doubt)


REACHED = [
    Strike(name, n) for name in ("tool:before", "tool:after", "checkpoint:after") for n in (1, 2)
]


def test_patterns_mean_layers_boundaries_and_single_times() -> None:
    assert chosen(REACHED, [], None, 0) == REACHED
    assert {strike.name for strike in chosen(REACHED, ["tool"], None, 0)} == {
        "tool:before",
        "tool:after",
    }
    assert chosen(REACHED, ["tool:after#2"], None, 0) == [Strike("tool:after", 2)]
    with pytest.raises(ConfigError, match="It reaches: checkpoint:after, tool:after, tool:before"):
        chosen(REACHED, ["too"], None, 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_sample_has_each_boundary_first_and_keeps_the_order(seed: int) -> None:
    drawn = chosen(REACHED, [], 3, seed)
    assert {strike.name for strike in drawn} == {strike.name for strike in REACHED}
    assert drawn == [strike for strike in REACHED if strike in drawn]
    assert drawn == chosen(REACHED, [], 3, seed)


def test_times_and_ids_are_no_difference_and_everything_else_is() -> None:
    one = {"parts": [{"content": "a", "timestamp": 1}], "run_id": "x"}
    assert (
        list(differences(one, {"parts": [{"content": "a", "timestamp": 2}], "run_id": "y"})) == []
    )
    assert list(differences(one, {"parts": [{"content": "b"}]})) == [("parts", 0, "content")]
    assert list(differences(one, {"parts": []})) == [("parts",)]


@pytest.mark.parametrize("policy", ["read", "idempotent", "transactional", "once (ask)"])
def test_a_probe_that_grew_blames_the_calls_that_ran_again(policy: str) -> None:
    calls = [call("look", "read", 1), call("pay", policy, 2)]
    (finding,) = judge_probe({ALL: 1}, {ALL: 2}, calls, AT)
    assert finding.tool == "pay" and "once more" in finding.text
    (finding,) = judge_probe({"pay": 1}, {"pay": 2}, calls, AT)
    assert finding.tool == "pay"


def test_a_probe_that_grew_where_a_repeat_is_declared_or_nobody_could_know_blames_nobody() -> None:
    for policy, doubt in (
        ("once (retry)", "run again"),
        ("once (ask)", "again: it was cut off in the middle"),
    ):
        assert judge_probe({ALL: 1}, {ALL: 2}, [call("pay", policy, 2, doubt)], AT) == []


def test_a_probe_that_grew_too_little_is_a_finding_unless_the_model_was_told() -> None:
    (finding,) = judge_probe({"pay": 1}, {}, [call("pay", "once (reconcile)", 1)], AT)
    assert "pay happened 1 times less" in finding.text
    told = [call("pay", "once (tell)", 0, "the model was told")]
    assert judge_probe({"pay": 1}, {}, told, AT) == []


def test_a_probe_may_be_async_and_must_count() -> None:
    async def count() -> dict[str, int]:
        return {"pay": 3}

    probe = Probe("shop:count", count)
    assert grown({"pay": 1}, probe()) == {"pay": 2}
    probe.close()
    for wrong in (True, "many", {"pay": "many"}, {1: 1}, None):
        with pytest.raises(ConfigError, match="--probe shop:count returned"):
            Probe("shop:count", lambda wrong=wrong: wrong)()
    with pytest.raises(ConfigError, match="raised ZeroDivisionError"):
        Probe("shop:count", lambda: 1 // 0)()
