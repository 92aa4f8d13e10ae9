"""What can be measured: the protocol, and which contestants there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, cast

from runs.workload import Policy, Workload

RunOne = Callable[[str], Awaitable[None]]
"""Does one run from its start to its end; its argument is the run's key, never used before."""


@dataclass(frozen=True)
class Place:
    """Where a contestant stores: a file that does not exist yet, or an empty database."""

    file: Path | None = None
    url: str | None = None


class Opener(Protocol):
    """Sets a contestant up; while the context is open, runs can be done."""

    def __call__(self, place: Place, workload: Workload) -> AbstractAsyncContextManager[RunOne]: ...


Database = Literal["none", "sqlite", "postgres"]


@dataclass(frozen=True)
class Contestant:
    """One way to have an agent run.

    Attributes:
        name: in results.
        label: in tables.
        database: what it stores in.
        module: in `runs.contestants`; its `opened` is the `Opener`.
        over: the contestant that shows what the same runs cost with nothing stored.
        policies: those that it can tell apart; others are measured as it does them all.
        only: the policy that it is there for; None: all.
        distributions: what has to be installed for it.
        how: how it is run here, for readers.
    """

    name: str
    label: str
    database: Database
    module: str
    over: str = "bare"
    policies: tuple[Policy, ...] = ()
    only: Policy | None = None
    distributions: tuple[str, ...] = ()
    how: str = ""

    @property
    def ours(self) -> bool:
        return self.name.startswith("durably")

    def opener(self) -> Opener:
        return cast(Opener, import_module(f"runs.contestants.{self.module}").opened)


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant("bare", "bare `agent.run`", "none", "bare", how="nothing is stored"),
        Contestant(
            "hooks",
            "`agent.run`, empty hooks",
            "none",
            "hooks",
            how="nothing is stored; a capability with the hooks that durably needs, which do "
            "nothing: what pydantic-ai takes for them",
        ),
        Contestant(
            "pause",
            "`agent.run`, 3 ms of waiting a step",
            "none",
            "pause",
            how="nothing is stored; the same hooks, which wait 3 ms after each response, as for a "
            "commit: what 50 runs take that give way to each other at every step",
        ),
        Contestant(
            "durably-sqlite",
            "durably, SQLite",
            "sqlite",
            "durable",
            policies=("read", "idempotent", "once", "transactional"),
            how="`enqueue`, a worker in the same process, `run.result()`; WAL, `synchronous=FULL`",
        ),
        Contestant(
            "durably-postgres",
            "durably, Postgres",
            "postgres",
            "durable",
            policies=("read", "idempotent", "once", "transactional"),
            how="the same on PostgreSQL: an Oban job starts each attempt",
        ),
        Contestant(
            "dbos-sqlite",
            "pydantic-ai + DBOS, SQLite",
            "sqlite",
            "dbos_",
            policies=("read", "transactional"),
            distributions=("dbos",),
            how="`DBOSDurability`, `agent.run` in a `@DBOS.workflow`, tools are `@DBOS.step`, or "
            "transactions of a datasource; its default rollback journal, which is synchronous=FULL",
        ),
        Contestant(
            "dbos-postgres",
            "pydantic-ai + DBOS, Postgres",
            "postgres",
            "dbos_",
            policies=("read", "transactional"),
            distributions=("dbos",),
            how="the same on PostgreSQL",
        ),
        Contestant(
            "absurd-postgres",
            "pydantic-ai + Absurd, Postgres",
            "postgres",
            "absurd",
            distributions=("absurd-sdk", "absurdctl"),
            how="`agent.run` in a task, each request and tool call a step, as pydantic-ai-absurd "
            "has it, which does not import beside this pydantic-ai; `start_worker` in the same "
            "process, on one connection",
        ),
        Contestant(
            "harness-sqlite",
            "harness `StepPersistence`, SQLite",
            "sqlite",
            "harness",
            distributions=("pydantic-ai-harness",),
            how="`StepPersistence(SqliteStepStore(database=...))`: saves histories and events, "
            "resumes nothing by itself; WAL, and SQLite's default, which is synchronous=FULL",
        ),
        Contestant(
            "langgraph",
            "LangGraph, nothing stored",
            "none",
            "langgraph_",
            over="langgraph",
            distributions=("langgraph",),
            how="a model node and a `ToolNode` in a loop, no checkpointer: what LangGraph's savers "
            "are compared to",
        ),
        Contestant(
            "langgraph-sqlite",
            "LangGraph, SQLite saver",
            "sqlite",
            "langgraph_",
            over="langgraph",
            distributions=("langgraph", "langgraph-checkpoint-sqlite"),
            how='`AsyncSqliteSaver`, `durability="sync"`; WAL, and SQLite\'s default, which is '
            "synchronous=FULL",
        ),
        Contestant(
            "langgraph-postgres",
            "LangGraph, Postgres saver",
            "postgres",
            "langgraph_",
            over="langgraph",
            distributions=("langgraph", "langgraph-checkpoint-postgres"),
            how='`AsyncPostgresSaver` on a pool of 10, `durability="sync"`',
        ),
        Contestant(
            "recipe-postgres",
            "plain recipe on oban-py, Postgres",
            "postgres",
            "recipe",
            distributions=("oban",),
            how="an Oban job around `agent.run`; the final history is saved, no step before it",
        ),
        Contestant(
            "least-sqlite",
            "a row a step and no more, SQLite",
            "sqlite",
            "least",
            policies=("once",),
            how="a hook that saves each response, in pydantic-ai's JSON, as one row, in commits "
            "that a thread makes for all who wait; two rows more around a once tool: what any "
            "library that saves before it acts takes at least; WAL, `synchronous=FULL`",
        ),
        Contestant(
            "least-postgres",
            "a row a step and no more, Postgres",
            "postgres",
            "least",
            policies=("once",),
            how="the same on PostgreSQL: a statement a row, on a pool of 10",
        ),
        *(
            Contestant(
                f"no-intents-{database}",
                f"durably without intents, {label}",
                database,
                "intents_left_out",
                policies=("once",),
                only="once",
                how="durably, but that a once tool may have begun is written nowhere: what would "
                "be left at least if it were written with the response",
            )
            for database, label in (("sqlite", "SQLite"), ("postgres", "Postgres"))
        ),
    )
}
