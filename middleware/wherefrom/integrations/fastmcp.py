"""MCP servers of the package ``fastmcp``: names traces after the tool, resource or prompt.

    instrument(server)

For servers of the package ``mcp`` see ``wherefrom.integrations.mcp``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastmcp import FastMCP
from fastmcp.exceptions import DisabledError, NotFoundError, ToolError
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext

from ..process import ledger
from ._mcp import RESOURCES, McpMessage
from .frameworks import check_app

__all__ = ["instrument"]


def instrument(server: FastMCP[Any]) -> None:
    """Record the messages of a server on the traces of their requests, by FastMCP's middleware.

    Attributes follow OpenTelemetry's conventions for MCP. A tool's ``isError`` and a JSON-RPC error are
    failures: the trace has the state ``ERROR`` and the exception, at any HTTP status.
    """
    check_app(server, FastMCP)
    server.add_middleware(_Middleware())


class _Middleware(Middleware):
    async def on_message(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        method, params, own = context.method, context.message, context.fastmcp_context
        current = None if own is None else own.request_context
        if own is None or current is None or method is None:
            return await call_next(context)
        given = params if isinstance(params, Mapping) else vars(params)
        message = McpMessage.begin(
            current.request, method, given, current.request_id, getattr(current, "protocol_version", None)
        )
        if message is None:
            return await call_next(context)
        target, succeeded = message.target, False
        try:
            with message:
                result = await call_next(context)
            if getattr(result, "is_error", False):
                message.result_failed(result.content)
            succeeded = True
            return result
        except Exception as error:
            message.failed(error, in_tool=isinstance(error, ToolError))
            if isinstance(error, (NotFoundError, DisabledError)):
                target = None
            raise
        finally:
            if target is not None and method in RESOURCES:
                target = await _own_uri(own.fastmcp, target)
            message.name(target, succeeded=succeeded)


async def _own_uri(server: FastMCP[Any], uri: str) -> str | None:
    """Return the URI of a resource, or the template that it matches."""
    try:
        if await server.get_resource(uri) is not None:
            return uri
        template = await server.get_resource_template(uri)
    except Exception as error:  # noqa: BLE001 - a provider failed, after the result is known
        ledger.failed("MCP names", error)
        return None
    return None if template is None else template.uri_template
