"""MCP servers of both packages, in this process, with a client that speaks JSON-RPC.

What every tool, resource and prompt has in common is tested under real servers: see
``tests/servers/test_framework_matrix.py``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from wherefrom import (
    MemorySink,
    Settings,
    Span,
    Trace,
    TraceMiddleware,
    current_trace,
    start_span,
    stats,
)

if TYPE_CHECKING:
    import mcp_types

MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def add(a: int, b: int) -> int:
    with start_span("work"):
        return a + b


def crash() -> int:
    raise LookupError("the tool broke")


def deny() -> int:
    from mcp.shared.exceptions import MCPError

    raise MCPError(code=-32042, message="first log in")


def rename() -> int:
    trace = current_trace()
    assert trace is not None
    trace.root.name = "my own name"
    return 1


def config() -> str:
    return "x"


def lost() -> str:
    raise LookupError("the resource broke")


def profile(user: str) -> str:
    return user


def ask(question: str) -> str:
    return question


def puzzle() -> str:
    raise LookupError("the prompt broke")


def offer(server: Any, tool_error: type[Exception]) -> None:
    """Give a server the tools, resources and prompts; ``refuse`` raises the package's own exception."""

    def refuse() -> int:
        raise tool_error("not today")

    for tool in (add, crash, refuse, deny, rename):
        server.tool()(tool)
    server.resource("config://app")(config)
    server.resource("config://lost")(lost)
    server.resource("users://{user}/profile")(profile)
    server.prompt()(ask)
    server.prompt()(puzzle)


def mcp_server() -> tuple[Any, Callable[..., Any]]:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

    from wherefrom.integrations import mcp as for_mcp

    server: Any = MCPServer("app")
    for_mcp.instrument(server)
    offer(server, ToolError)
    return server, server.streamable_http_app


def fastmcp_server() -> tuple[Any, Callable[..., Any]]:
    from fastmcp import FastMCP
    from fastmcp.exceptions import ToolError as FastMCPToolError

    from wherefrom.integrations import fastmcp as for_fastmcp

    server: Any = FastMCP("app")
    for_fastmcp.instrument(server)
    offer(server, FastMCPToolError)
    return server, server.http_app


class Client:
    """Sends messages to a traced app, and gives the trace of each."""

    def __init__(self, http: httpx.AsyncClient, sink: MemorySink) -> None:
        self.http = http
        self.sink = sink
        self.headers = {"accept": "application/json, text/event-stream"}

    async def post(self, method: str, params: Any = None, **headers: str) -> httpx.Response:
        body = {"jsonrpc": "2.0", "id": 7, "method": method} | ({} if params is None else {"params": params})
        return await self.http.post("/mcp", json=body, headers=self.headers | headers)

    async def send(self, method: str, params: Any = None, **headers: str) -> tuple[httpx.Response, Trace]:
        response = await self.post(method, params, **headers)
        return response, self.sink.traces[-1]

    async def ask(self, method: str, params: Any = None, **headers: str) -> Trace:
        return (await self.send(method, params, **headers))[1]

    async def call(self, tool: str, **arguments: Any) -> Trace:
        return await self.ask("tools/call", {"name": tool, "arguments": arguments})

    async def open(self) -> str:
        """Open a session of the protocol that has sessions."""
        info = {"name": "test", "version": "1"}
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}
        response = await self.post("initialize", params)
        self.headers |= {
            "mcp-session-id": response.headers["mcp-session-id"],
            "mcp-protocol-version": "2025-06-18",
        }
        notice = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await self.http.post("/mcp", json=notice, headers=self.headers)
        return str(response.headers["mcp-session-id"])


@asynccontextmanager
async def client_of(app: Any, **chosen: Any) -> AsyncIterator[Client]:
    sink = MemorySink()
    transport = httpx.ASGITransport(TraceMiddleware(app, settings=Settings(**chosen), sink=sink))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as http,
    ):
        yield Client(http, sink)


SERVERS = pytest.mark.parametrize("make", [mcp_server, fastmcp_server], ids=["mcp", "fastmcp"])


def root(trace: Trace) -> Span:
    assert trace.root is not None
    return trace.root


def raised(trace: Trace) -> list[str]:
    return [event.attributes["exception.type"].rpartition(".")[2] for event in root(trace).events]


@SERVERS
async def test_a_tool(make: Any) -> None:
    """A call has the attributes of OpenTelemetry's conventions, and the spans of the tool."""
    _, app = make()
    async with client_of(app()) as client:
        session = await client.open()
        trace = await client.call("add", a=1, b=2)
    assert (trace.info.name, trace.info.state) == ("tools/call add", "OK")
    found = root(trace).attributes
    assert {key: found[key] for key in found if key.startswith(("mcp.", "gen_ai.", "jsonrpc.", "rpc."))} == {
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2025-06-18",
        "mcp.session.id": session,
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "jsonrpc.request.id": "7",
    }
    assert found["http.route"] == "/mcp"
    assert "error.type" not in found
    assert [(span.name, span.parent_id) for span in trace.data.spans[1:]] == [("work", root(trace).span_id)]
    assert trace.info.trace_metadata["mlflow.trace.session"] == session


@SERVERS
@pytest.mark.parametrize(
    ("tool", "kind", "error"),
    [("crash", "LookupError", "tool_error"), ("refuse", "ToolError", "tool_error")],
)
async def test_a_tool_that_fails(make: Any, tool: str, kind: str, error: str) -> None:
    """``isError`` is a failure, though the status is 200; the event is what the tool raised."""
    _, app = make()
    async with client_of(app()) as client:
        await client.open()
        response, trace = await client.send("tools/call", {"name": tool, "arguments": {}})
    assert (response.status_code, '"isError":true' in response.text) == (200, True)
    assert (trace.info.name, trace.info.state, raised(trace)) == (f"tools/call {tool}", "ERROR", [kind])
    assert root(trace).attributes["error.type"] == error
    assert root(trace).attributes["wherefrom.outcome"] == "completed"
    assert "test_mcp.py" in root(trace).events[0].attributes["exception.stacktrace"]


@SERVERS
async def test_json_rpc_errors(make: Any) -> None:
    """The code of an error is its type, as the conventions ask."""
    _, app = make()
    async with client_of(app()) as client:
        await client.open()
        trace = await client.ask("nobody/knows", {})
    found = root(trace).attributes
    assert (found["error.type"], found["rpc.response.status_code"]) == ("-32601", "-32601")
    assert (trace.info.name, trace.info.state) == ("POST /mcp", "ERROR")


async def test_an_error_that_a_tool_chooses() -> None:
    """A JSON-RPC error that a tool raises."""
    _, app = mcp_server()
    async with client_of(app()) as client:
        await client.open()
        trace = await client.call("deny")
    assert (trace.info.name, trace.info.state) == ("tools/call deny", "ERROR")
    assert root(trace).attributes["error.type"] == "-32042"
    assert root(trace).status.description == "MCPError: first log in"


@SERVERS
async def test_resources(make: Any) -> None:
    """A resource is named by its URI, and those of a template by the template."""
    _, app = make()
    async with client_of(app()) as client:
        await client.open()
        for uri, name, state in (
            ("config://app", "resources/read config://app", "OK"),
            ("config://lost", "resources/read config://lost", "ERROR"),
            ("users://ada/profile", "resources/read users://{user}/profile", "OK"),
            ("users://bob/profile", "resources/read users://{user}/profile", "OK"),
            ("made://up", "resources/read", "ERROR"),
        ):
            trace = await client.ask("resources/read", {"uri": uri})
            assert (trace.info.name, trace.info.state) == (name, state)
            assert root(trace).attributes["mcp.resource.uri"] == uri
            assert (raised(trace) == ["LookupError"]) == (uri == "config://lost")


@SERVERS
async def test_prompts(make: Any) -> None:
    """A prompt is named by its name."""
    _, app = make()
    async with client_of(app()) as client:
        await client.open()
        trace = await client.ask("prompts/get", {"name": "ask", "arguments": {"question": "why"}})
        assert (trace.info.name, root(trace).attributes["gen_ai.prompt.name"]) == ("prompts/get ask", "ask")
        trace = await client.ask("prompts/get", {"name": "puzzle"})
        assert (trace.info.name, trace.info.state) == ("prompts/get puzzle", "ERROR")
        assert raised(trace) == ["LookupError"]


@SERVERS
async def test_names_stay_few(make: Any) -> None:
    """A client cannot make names: they are the server's tools, or the methods of the protocol."""
    _, app = make()
    async with client_of(app()) as client:
        await client.open()
        messages: list[tuple[str, Any]] = [
            ("tools/call", {"name": "x" * 5000, "arguments": {}}),
            ("tools/call", {"name": "crash\n", "arguments": {}}),
            ("tools/call", {"name": {"a": [1]}, "arguments": {}}),
            ("tools/call", {"": "x"}),
            ("tools/call", {}),
            ("tools/call", None),
            ("tools/call", {"name": None}),
            ("resources/read", {"uri": "users://a/b/profile"}),
            ("resources/read", {"uri": "\x00"}),
            ("prompts/get", {"name": "add"}),
            ("tools/" + "y" * 5000, {}),
            ("", {}),
        ]
        for method, params in messages:
            await client.send(method, params)
        for content in (b"{", b"[]", b"null", b'{"jsonrpc": "2.0", "id": 1, "method": 7}', b"\xff"):
            await client.http.post("/mcp", content=content, headers=client.headers)
    assert {trace.info.name for trace in client.sink.traces} <= {
        "POST /mcp",
        "initialize",
        "tools/call",
        "resources/read",
        "prompts/get",
    }
    assert not stats().errors


@SERVERS
async def test_the_client_names_its_session(make: Any) -> None:
    """``X-Session-ID`` wins over the id of the MCP session, which is an attribute all the same."""
    _, app = make()
    async with client_of(app()) as client:
        session = await client.open()
        trace = await client.ask("ping", **{"x-session-id": "chat-7", "x-user-id": "ada"})
    assert trace.info.name == "ping"
    assert trace.info.trace_metadata["mlflow.trace.session"] == "chat-7"
    assert trace.info.trace_metadata["mlflow.trace.user"] == "ada"
    assert root(trace).attributes["mcp.session.id"] == session


@SERVERS
async def test_a_session_that_the_server_does_not_check(make: Any) -> None:
    """A server without sessions takes any id: it is refused like those of other headers."""
    _, app = make()
    async with client_of(app(stateless_http=True)) as client:
        for session, recorded in (("s-1", "s-1"), ("x" * 257, None), ("a\tb", None), ("", None)):
            trace = await client.ask("tools/list", {}, **{"mcp-session-id": session})
            assert (trace.info.name, trace.info.state) == ("tools/list", "OK")
            assert trace.info.trace_metadata.get("mlflow.trace.session") == recorded
            assert root(trace).attributes.get("mcp.session.id") == recorded
    assert stats().refused_headers == {"mcp-session-id": 2}


@SERVERS
async def test_the_protocol_without_sessions(make: Any) -> None:
    """2026-07-28: each request stands alone, and is answered in the task of the request."""
    _, app = make()
    async with client_of(app()) as client:
        for method, params, name in (
            ("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}}, "add"),
            ("tools/call", {"name": "crash", "arguments": {}}, "crash"),
            ("resources/read", {"uri": "users://ada/profile"}, "users://ada/profile"),
        ):
            headers = {
                "mcp-protocol-version": "2026-07-28",
                "mcp-method": method,
                "mcp-name": name,
            }
            response, trace = await client.send(method, params | {"_meta": MODERN}, **headers)
            target = name.replace("ada", "{user}")
            assert (response.status_code, trace.info.name) == (200, f"{method} {target}"), response.text
            assert trace.info.state == ("ERROR" if name == "crash" else "OK")
            assert root(trace).attributes["mcp.protocol.version"] == "2026-07-28"
            assert "mlflow.trace.session" not in trace.info.trace_metadata


@SERVERS
async def test_the_app_renames_the_trace(make: Any) -> None:
    """A name that the tool gives is kept."""
    _, app = make()
    async with client_of(app()) as client:
        await client.open()
        trace = await client.call("rename")
    assert trace.info.name == "my own name"


@SERVERS
async def test_a_tool_that_calls_a_tool(make: Any) -> None:
    """The call of the client names the trace; a failure that the tool handles is none."""
    server, app = make()

    async def outer() -> str:
        try:
            await server.call_tool("crash", {})
        except Exception:
            return "handled"
        return "not raised"

    server.tool()(outer)
    async with client_of(app()) as client:
        await client.open()
        trace = await client.call("outer")
    assert (trace.info.name, trace.info.state, raised(trace)) == ("tools/call outer", "OK", [])


@SERVERS
async def test_a_tool_that_is_added_later(make: Any) -> None:
    """What a server offers may change while it runs."""
    server, app = make()

    def later() -> int:
        return 1

    async with client_of(app()) as client:
        await client.open()
        assert (await client.call("later")).info.name == "tools/call"
        server.tool()(later)
        assert (await client.call("later")).info.name == "tools/call later"


@SERVERS
async def test_without_a_trace(make: Any) -> None:
    """A server without the middleware, and a path that is excluded, work as before."""
    _, app = make()
    async with client_of(app(), exclude=("/mcp",)) as client:
        await client.open()
        response = await client.post("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}})
    assert '"3"' in response.text
    assert client.sink.traces == []


async def test_a_lowlevel_server() -> None:
    """A server without the decorators: its handlers list what it has."""
    import mcp_types
    from mcp.server.lowlevel import Server

    from wherefrom.integrations import mcp as for_mcp

    async def list_tools(ctx: Any, params: Any) -> mcp_types.ListToolsResult:
        names = ["one"] if params.cursor is None else ["two"]
        tools = [mcp_types.Tool(name=name, input_schema={"type": "object"}) for name in names]
        return mcp_types.ListToolsResult(tools=tools, next_cursor="more" if params.cursor is None else None)

    async def call_tool(ctx: Any, params: Any) -> mcp_types.CallToolResult:
        content: list[Any] = [mcp_types.TextContent(type="text", text="it did not work")]
        return mcp_types.CallToolResult(content=content, is_error=True)

    server: Any = Server("app", on_list_tools=list_tools, on_call_tool=call_tool)
    for_mcp.instrument(server)
    async with client_of(server.streamable_http_app()) as client:
        await client.open()
        for name, expected in (("two", "tools/call two"), ("made-up", "tools/call")):
            trace = await client.call(name)
            assert (trace.info.name, trace.info.state) == (expected, "ERROR")
            assert root(trace).status.description == "it did not work"
            assert root(trace).attributes["error.type"] == "tool_error"


async def test_a_server_that_lists_nothing() -> None:
    """A listing that fails is counted, and the client gets its answer."""
    import mcp_types
    from mcp.server.lowlevel import Server

    from wherefrom.integrations import mcp as for_mcp

    async def list_tools(ctx: Any, params: Any) -> mcp_types.ListToolsResult:
        raise LookupError("no list today")

    async def call_tool(ctx: Any, params: Any) -> mcp_types.CallToolResult:
        content: list[Any] = [mcp_types.TextContent(type="text", text=json.dumps("done"))]
        return mcp_types.CallToolResult(content=content)

    server: Any = Server("app", on_list_tools=list_tools, on_call_tool=call_tool)
    for_mcp.instrument(server)
    async with client_of(server.streamable_http_app()) as client:
        await client.open()
        response, trace = await client.send("tools/call", {"name": "one", "arguments": {}})
    assert "done" in response.text
    assert (trace.info.name, trace.info.state) == ("tools/call", "OK")
