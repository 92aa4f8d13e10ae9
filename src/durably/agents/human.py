"""Tools with which a model asks a person: text, a choice, or a form. Public as ``durably.human``.

Owns what the person is shown; waiting for the answer, and checking it, is everybody's.
"""

from __future__ import annotations

from typing import Any

from pydantic_ai import CallDeferred
from pydantic_ai.toolsets import FunctionToolset

from durably import effects


def toolset() -> FunctionToolset[Any]:
    """The tools ``ask_person``, ``ask_choice`` and ``ask_form``, for ``Agent(toolsets=[...])``.

    A call suspends the run and shows in the inbox as a question; ``run.answer(call_id, value)`` or
    ``durably answer`` gives the model its answer.
    """
    tools: FunctionToolset[Any] = FunctionToolset(metadata=effects.READ)
    tools.add_function(ask_person, name="ask_person")
    tools.add_function(ask_choice, name="ask_choice")
    tools.add_function(ask_form, name="ask_form")
    return tools


async def ask_person(question: str) -> str:
    """Ask a person a question and wait for their answer, in their own words.

    Args:
        question: what to ask; say all that they need to know to answer.
    """
    raise CallDeferred(metadata={"question": question})


async def ask_choice(question: str, choices: list[str]) -> str:
    """Ask a person to choose, and wait for their choice.

    Args:
        question: what to ask; say all that they need to know to choose.
        choices: what they may choose from.
    """
    raise CallDeferred(metadata={"question": question, "choices": choices})


async def ask_form(question: str, form: dict[str, Any]) -> dict[str, Any]:
    """Ask a person to fill in a form, and wait for it.

    Args:
        question: what the form is for.
        form: a JSON schema of type object: the fields, with a description of each.
    """
    raise CallDeferred(metadata={"question": question, "form": form})
