"""MCP servers of the package ``mcp``: names traces after the tool, resource or prompt.

    instrument(server)

For servers of the package ``fastmcp`` see ``wherefrom.integrations.fastmcp``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from typing import Any, Final

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.shared.uri_template import UriTemplate

from ..process import ledger
from ._mcp import RESOURCES, McpMessage
from .frameworks import check_app

__all__ = ["instrument"]

# For each method: the method that lists its targets, the key of the list, and the key of the names.
_LISTS: Final = {
    "tools/call": ("tools/list", "tools", "name"),
    "prompts/get": ("prompts/list", "prompts", "name"),
    **dict.fromkeys(RESOURCES, ("resources/list", "resources", "uri")),
}
_TEMPLATES: Final = ("resources/templates/list", "resourceTemplates", "uriTemplate")
_MAX_PAGES: Final = 100

_raised: ContextVar[Exception | None] = ContextVar("wherefrom_mcp_raised", default=None)


def instrument(server: MCPServer[Any] | Server[Any]) -> None:
    """Record the messages of a server on the traces of their requests, by MCP's middleware.

    Attributes follow OpenTelemetry's conventions for MCP. A tool's ``isError`` and a JSON-RPC error are
    failures: the trace has the state ``ERROR`` and the exception, at any HTTP status.
    """
    check_app(server, MCPServer, Server)
    server.middleware.append(_Middleware())
    if isinstance(server, MCPServer):
        # The server turns an exception of a tool into a result before any middleware sees it.
        call_tool = server.call_tool

        @wraps(call_tool)
        async def recorded(*args: Any, **kwargs: Any) -> Any:
            try:
                return await call_tool(*args, **kwargs)
            except Exception as error:
                _raised.set(error)
                raise

        server.call_tool = recorded  # type: ignore[method-assign] # a public method, called through self


class _Middleware:
    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {method: set() for method in _LISTS}

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        params = ctx.params or {}
        message = McpMessage.begin(ctx.request, ctx.method, params, ctx.request_id, ctx.protocol_version)
        if message is None:
            return await call_next(ctx)
        _raised.set(None)
        succeeded = False
        try:
            with message:
                result = await call_next(ctx)
            if isinstance(result, Mapping) and result.get("isError") is True:
                if (error := _raised.get()) is not None:
                    message.failed(error, in_tool=True)
                else:
                    message.result_failed(result.get("content") or ())
            succeeded = True
            return result
        except Exception as error:
            message.failed(error)
            raise
        finally:
            target = message.target and await self._known_target(ctx, call_next, message.target)
            message.name(target, succeeded=succeeded)

    async def _known_target(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext, target: str
    ) -> str | None:
        """Return a target that the server lists, or a resource's template; ``None`` for any other target."""
        known = self._known[ctx.method]
        try:
            if target not in known:
                known |= await _listed(ctx, call_next, *_LISTS[ctx.method])
            if target in known:
                return target
            if ctx.method in RESOURCES:
                for template in await _listed(ctx, call_next, *_TEMPLATES):
                    if UriTemplate.parse(template).match(target) is not None:
                        return template
        except Exception as error:  # noqa: BLE001 - a failed list must not affect the result
            ledger.failed("MCP names", error)
        return None


async def _listed(
    ctx: ServerRequestContext[Any, Any], call_next: CallNext, method: str, key: str, field: str
) -> set[str]:
    """Return what the server lists to this client."""
    found: set[str] = set()
    params: dict[str, Any] = {"_meta": (ctx.params or {})["_meta"]} if "_meta" in (ctx.params or {}) else {}
    for _ in range(_MAX_PAGES):
        result = await call_next(replace(ctx, method=method, params=params))
        if not isinstance(result, Mapping):
            break
        found |= {item[field] for item in result.get(key, ())}
        if (cursor := result.get("nextCursor")) is None:
            break
        params = {**params, "cursor": cursor}
    return found
