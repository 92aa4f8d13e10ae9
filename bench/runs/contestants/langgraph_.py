"""LangGraph: the same loop as a graph, with the saver of either database or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from runs.contestant import Place, RunOne
from runs.scripted import PROMPT
from runs.workload import Workload, asked, step_of

POOL = 10


@asynccontextmanager
async def opened(place: Place, workload: Workload) -> AsyncGenerator[RunOne]:
    async with saver_for(place) as saver:
        graph = graph_for(workload).compile(checkpointer=saver)
        options: dict[str, Any] = {} if saver is None else {"durability": "sync"}

        async def one(key: str) -> None:
            config = {"configurable": {"thread_id": key}, "recursion_limit": 1_000_000}
            await graph.ainvoke({"messages": [HumanMessage(PROMPT)]}, config, **options)

        yield one


@asynccontextmanager
async def saver_for(place: Place) -> AsyncGenerator[Any]:
    if place.file:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with AsyncSqliteSaver.from_conn_string(str(place.file)) as saver:
            yield saver
    elif place.url:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg.rows import dict_row
        from psycopg_pool import AsyncConnectionPool

        settings = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        pool = AsyncConnectionPool(place.url, min_size=POOL, kwargs=settings, open=False)
        async with pool:
            saver = AsyncPostgresSaver(pool)
            await saver.setup()
            yield saver
    else:
        yield None


def graph_for(workload: Workload) -> StateGraph[Any, Any, Any, Any]:
    @tool
    async def look(item: int) -> str:
        """Look at an item."""
        return workload.text

    async def model(state: MessagesState) -> dict[str, Any]:
        if workload.latency:
            await asyncio.sleep(workload.latency)
        last = state["messages"][-1]
        step = step_of(last.tool_call_id) + 1 if isinstance(last, ToolMessage) else 0
        if step == workload.steps:
            return {"messages": [AIMessage("It is all right.")]}
        calls = [
            {"name": "look", "args": {"item": call}, "id": asked(step, call)}
            for call in range(workload.tools)
        ]
        return {"messages": [AIMessage(workload.text, tool_calls=calls)]}

    def after_model(state: MessagesState) -> str:
        last = state["messages"][-1]
        return "tools" if isinstance(last, AIMessage) and last.tool_calls else END

    graph = StateGraph(MessagesState)
    graph.add_node("model", model)
    graph.add_node("tools", ToolNode([look]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", after_model, ["tools", END])
    graph.add_edge("tools", "model")
    return graph
