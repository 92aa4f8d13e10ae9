"""An MCP server over stdio, as a process of its own: one tool of each kind of annotation."""

from mcp.server import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("shop")


@server.tool(annotations=ToolAnnotations(readOnlyHint=True))
def look() -> str:
    return "seen"


@server.tool(annotations=ToolAnnotations(idempotentHint=True))
def put() -> str:
    return "put"


@server.tool()
def pay() -> str:
    return "paid"


if __name__ == "__main__":
    server.run("stdio")
