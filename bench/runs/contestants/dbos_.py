"""pydantic-ai with DBOS: its capability, and each tool a step or a transaction."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import sqlalchemy
from dbos import DBOS, DBOSConfig, SetWorkflowID, SQLAlchemyDatasource
from pydantic_ai.durable_exec.dbos import DBOSDurability

from newer_sqlite import use_newer_sqlite
from runs.contestant import Place, RunOne
from runs.scripted import NO_LIMITS, PROMPT, Tool, agent_for
from runs.workload import Workload


@asynccontextmanager
async def opened(place: Place, workload: Workload) -> AsyncGenerator[RunOne]:
    config = configuration(place)
    DBOS(config=config)
    tool = transaction(config, workload) if workload.policy == "transactional" else step(workload)
    agent = agent_for(workload, tool, capabilities=[DBOSDurability()])

    @DBOS.workflow(name="ask")
    async def ask(prompt: str) -> str:
        return (await agent.run(prompt, usage_limits=NO_LIMITS)).output

    async def one(key: str) -> None:
        with SetWorkflowID(key):
            await ask(PROMPT)

    DBOS.launch()
    try:
        yield one
    finally:
        DBOS.destroy()


def configuration(place: Place) -> DBOSConfig:
    config: DBOSConfig = {
        "name": "scripted",
        "system_database_url": f"sqlite:///{place.file}",
        "console_log_level": "ERROR",
        "log_level": "ERROR",
    }
    if place.url:
        url = place.url.replace("postgresql://", "postgresql+psycopg://")
        return {**config, "system_database_url": url}
    use_newer_sqlite()
    return config


def step(workload: Workload) -> Tool:
    @DBOS.step(name="look")
    async def look(item: int) -> str:
        return workload.text

    return look


def transaction(config: DBOSConfig, workload: Workload) -> Tool:
    """A tool that writes a row of the application's, in one transaction with its record."""
    url = config["system_database_url"]
    assert url is not None
    source = SQLAlchemyDatasource.create(url)
    with source.engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE seen (item integer NOT NULL)"))

    @source.transaction(name="look")
    def look(item: int) -> str:
        source.sql_session().execute(sqlalchemy.text("INSERT INTO seen VALUES (42)"))
        return workload.text

    return look
