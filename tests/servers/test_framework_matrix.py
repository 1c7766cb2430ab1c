"""Each framework under each server: a route with a parameter, a 404, an exception, a path without a route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from .processes import PROMPT, Answer, Server, StoredTrace, running, start

# How each framework spells the parameter of its routes.
PARAMETERS = {
    "fastapi": "{item}",
    "starlette": "{item}",
    "litestar": "{item}",
    "quart": "<int:item>",
    "django": "<int:item>",
    "falcon": "{item:int}",
    "blacksheep": "{int:item}",
    "sanic": "<item:int>",
}
MCP = ("mcp", "fastmcp")
SERVERS = ("uvicorn", "hypercorn", "granian", "gunicorn -k uvicorn_worker.UvicornWorker")
WHO = {"X-Session-ID": "chat-7", "X-User-ID": "ada"}
ACCEPT = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module", params=SERVERS, ids=lambda command: command.split()[0])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process with an app of each framework."""
    found = start(tmp_path_factory.mktemp("apps"), request.param, app="frameworks:app", environ=PROMPT)
    with running(found, patience=60):
        yield found


def is_attributed(trace: StoredTrace) -> None:
    assert (trace.session, trace.user) == ("chat-7", "ada")


@pytest.mark.parametrize("framework", PARAMETERS)
async def test_a_framework_under_a_server(server: Server, framework: str) -> None:
    """Name, status, exception, session and user are those that the framework knows of the request."""
    paths = {"ok": "/items/7", "refused": "/refuse/7", "failed": "/fail/7", "unknown": "/nope/7"}
    ids = {request: f"{framework}-{request}" for request in paths}
    answers: dict[str, Answer] = {}
    for request, path in paths.items():
        headers = WHO | {"X-Framework": framework, "X-Request-ID": ids[request]}
        answers[request] = await server.get(path, headers)
    stored = await server.traces(ids.values())
    traces = {request: stored[request_id] for request, request_id in ids.items()}
    parameter = PARAMETERS[framework]

    assert [answers[request].status for request in paths] == [200, 404, 500, 404]
    assert [traces[request].name for request in paths] == [
        f"GET /items/{parameter}",
        f"GET /refuse/{parameter}",
        f"GET /fail/{parameter}",
        "GET",
    ]
    assert [traces[request].state for request in paths] == ["OK", "OK", "ERROR", "OK"]
    for request, trace in traces.items():
        is_attributed(trace)
        assert answers[request].request_ids == [ids[request]]
        assert trace.attributes["http.response.status_code"] == answers[request].status
        assert trace.attributes["url.path"] == paths[request]
    assert answers["ok"].json() == {"item": 7}
    assert traces["ok"].children == ["work"]
    assert [bool(json.loads(traces[request].root["events"] or "[]")) for request in paths] == [
        False,
        False,
        True,
        False,
    ]
    assert_is_the_exception(traces["failed"])
    assert traces["failed"].attributes["wherefrom.outcome"] == "failed"


def assert_is_the_exception(trace: StoredTrace) -> None:
    """The event says what the handler raised, and where."""
    (event,) = json.loads(trace.root["events"])
    found = event["attributes"]
    assert (found["exception.type"], found["exception.message"]) == ("LookupError", "item 7 is broken")
    assert 'raise LookupError(f"item {' in found["exception.stacktrace"]
    assert trace.root["status_code"] == "ERROR"


class McpClient:
    """A client that speaks JSON-RPC over HTTP, so that a test gives each message its request id."""

    def __init__(self, server: Server, framework: str) -> None:
        self.server = server
        self.framework = framework
        self.headers: dict[str, str] = ACCEPT | {"X-Framework": framework}

    async def open(self) -> str:
        """Open a session and return its id."""
        client = {"name": "test", "version": "1"}
        answer = await self.call(
            "open", "initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
        )
        session = dict(answer.headers)["mcp-session-id"]
        self.headers |= {"Mcp-Session-Id": session, "Mcp-Protocol-Version": "2025-06-18"}
        await self.call("opened", "notifications/initialized", None)
        return session

    async def call(self, request: str, method: str, params: Any, **headers: str) -> Answer:
        """Send one message; a notification if it has no parameters."""
        body = {"jsonrpc": "2.0", "method": method} | ({} if params is None else {"id": 1, "params": params})
        async with self.server.connection() as connection:
            return await asyncio.wait_for(
                connection.request(
                    "/mcp",
                    self.headers | {"X-Request-ID": f"{self.framework}-{request}"} | headers,
                    method="POST",
                    body=json.dumps(body).encode(),
                ),
                20,
            )


@pytest.mark.parametrize("framework", MCP)
async def test_an_mcp_server_under_a_server(server: Server, framework: str) -> None:
    """The tool, resource or prompt names the trace; ``isError`` is a failure though the status is 200."""
    client = McpClient(server, framework)
    session = await client.open()
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "ok": ("tools/call", {"name": "read", "arguments": {"item": 7}}),
        "failed": ("tools/call", {"name": "fail", "arguments": {"item": 7}}),
        "unknown": ("tools/call", {"name": "made-up", "arguments": {}}),
        "resource": ("resources/read", {"uri": "notes://7"}),
        "prompt": ("prompts/get", {"name": "ask", "arguments": {"question": "why"}}),
    }
    for request, (method, params) in calls.items():
        answer = await client.call(request, method, params)
        assert (answer.status, answer.request_ids) == (200, [f"{framework}-{request}"])
    await client.call("whose", "tools/list", {}, **WHO)
    ids = {request: f"{framework}-{request}" for request in ("open", *calls, "whose")}
    stored = await server.traces(ids.values())
    traces = {request: stored[request_id] for request, request_id in ids.items()}

    assert {request: trace.name for request, trace in traces.items()} == {
        "open": "initialize",
        "ok": "tools/call read",
        "failed": "tools/call fail",
        "unknown": "tools/call",
        "resource": "resources/read notes://{note}",
        "prompt": "prompts/get ask",
        "whose": "tools/list",
    }
    assert {request for request, trace in traces.items() if trace.state == "ERROR"} == {"failed", "unknown"}
    assert {traces[request].session for request in calls} == {session}
    is_attributed(traces["whose"])
    assert traces["ok"].children == ["work"]
    assert_is_the_exception(traces["failed"])
    found = traces["failed"].attributes
    assert {key: found[key] for key in ("gen_ai.operation.name", "gen_ai.tool.name", "mcp.method.name")} == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "fail",
        "mcp.method.name": "tools/call",
    }
    assert (found["error.type"], found["mcp.session.id"]) == ("tool_error", session)
    assert (found["http.response.status_code"], found["http.route"]) == (200, "/mcp")
