"""The protocol keeps its promises in every state that can be reached, and no rule of it is idle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from protocol import promises
from protocol.ledger import Rules
from protocol.model import POLICIES, Size
from protocol.search import explore
from protocol.variants import VARIANTS, Variant

DOCS = Path(__file__).parents[2] / "docs" / "reliability.md"
EVERYTHING = os.environ.get("MODEL_TESTS") == "all"

SMALL = [
    *(Size(((policy,),), faults=1) for policy in POLICIES),
    *(Size(((policy,),), faults=2) for policy in ("read", "transactional")),
    Size((("ask",),), faults=2, kinds=frozenset(("crash", "freeze", "lost answer"))),
    Size((("ask", "transactional"),), faults=1),
    Size((("ask",), ("idempotent",)), faults=1),
]
"""What `make test` searches: each policy alone, with two faults at once, and beside another."""

LARGE = [
    *(Size(((policy,),), faults=2) for policy in POLICIES),
    *(Size(((policy,),), faults=3) for policy in ("read", "idempotent", "transactional")),
    Size((("ask",),), faults=2, processes=3),
    *(Size((("ask", policy),), faults=1) for policy in POLICIES),
    Size((("tell",), ("transactional",)), faults=2),
]
"""What `make model` searches."""


def _name(size: Size) -> str:
    responses = ", then ".join("+".join(calls) for calls in size.responses)
    return f"{responses}; faults {size.faults}, processes {size.processes}"


@pytest.mark.parametrize("size", LARGE if EVERYTHING else SMALL, ids=_name)
def test_every_promise_holds_in_every_state(size: Size) -> None:
    found = explore(size)
    print(f"{_name(size)}: {len(found.origins)} states, {found.steps} steps")
    assert found.broken is None, f"\n{found.broken}"
    ends = {state.ledger.state for state in found.origins}
    assert ends >= {"completed", "retryable" if "tool raises" in size.kinds else "discarded"}


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.rule)
def test_without_a_rule_its_promise_is_broken(variant: Variant) -> None:
    found = explore(variant.size).broken
    assert found is not None, f"nothing needs {variant.rule}"
    print(found)
    assert found.promise == variant.breaks


def test_every_rule_has_its_variant() -> None:
    assert {variant.rule for variant in VARIANTS} == set(vars(Rules()))


def test_docs_say_which_promise_each_rule_keeps() -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    for variant in VARIANTS:
        said = getattr(promises, variant.breaks).__doc__.partition(":")[0]
        keeper = "the ledger" if variant.in_ledger else "the attempt"
        assert any(
            row.startswith(f"| `{variant.rule}` |") and row.endswith(f"| {said} | {keeper} |")
            for row in rows
        ), f"docs/reliability.md does not say of {variant.rule}: {said}, {keeper}"
