"""What can be done with a run, as commands for a shell. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from shlex import quote

from durably.web.views.asked import Asked
from durably.web.views.text import one_line, visible


@dataclass(frozen=True, slots=True)
class Command:
    """A command, ready to be pasted; words in capitals are to be filled in."""

    what: str
    text: str


def call_commands(key: str, url: str, call: Asked) -> Iterator[Command]:
    """The commands that decide about a call."""

    def command(verb: str, *options: str) -> str:
        return _command(verb, (key, call.call_id), options, url)

    if "done" in call.allowed:
        yield Command("It happened, with this result", command("resolve", "--done", "JSON"))
        yield Command("It failed; the model is told why", command("resolve", "--failed", "TEXT"))
        yield Command("It did not happen: run it again", command("resolve", "--again"))
    if "approve" in call.allowed:
        yield Command("Approve", command("approve"))
        yield Command("Approve with other arguments", command("approve", "--args", "JSON"))
    if "answer" in call.allowed:
        yield Command("Answer", command("answer", "--value", "JSON"))
    if "deny" in call.allowed:
        yield Command("Deny; the model is told why", command("deny", "--reason", "TEXT"))


def run_commands(
    key: str, url: str, may: Container[str], signals: Sequence[str] = ()
) -> Iterator[Command]:
    """The commands that move a run, and those that look at it.

    Args:
        may: what the run allows, of ``run.actions_allowed``.
        signals: the names of those that it waits for.
    """

    def command(verb: str, *options: str, name: str | None = None) -> str:
        return _command(verb, (key,) if name is None else (key, name), options, url)

    for name in signals:
        what = f"Send the signal {one_line(visible(name), 40)}"
        yield Command(what, command("signal", "--payload", "JSON", name=name))
    if "cancel" in may:
        yield Command("Cancel", command("cancel"))
    if "retry" in may:
        yield Command("Retry", command("retry"))
    yield Command("Show", command("show"))
    yield Command("Watch", command("watch"))


def _command(verb: str, words: Sequence[str], options: Sequence[str], url: str) -> str:
    given = " ".join([*options, "--url", quote(url)])
    names = " ".join(quote(word) for word in words)
    if any(word.startswith("-") for word in words):
        return f"durably {verb} {given} -- {names}"  # It would be taken for an option.
    return f"durably {verb} {names} {given}"
