"""MCP: records a message by OpenTelemetry's conventions, for the integrations of both packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final

from .. import keys
from ..asgi.exchange import SCOPE_KEY
from ..asgi.headers import clean_value
from ..context import Tokens, enter, leave
from ..model import SpanStatusCode
from ..tracing.live import LiveTrace

RESOURCES: Final = ("resources/read", "resources/subscribe", "resources/unsubscribe")
_TARGETS: Final = {
    "tools/call": ("name", "gen_ai.tool.name"),
    "prompts/get": ("name", "gen_ai.prompt.name"),
    **dict.fromkeys(RESOURCES, ("uri", "mcp.resource.uri")),
}
_METHOD: Final = "mcp.method.name"
_METHODS: Final = frozenset(
    {
        "completion/complete",
        "initialize",
        "logging/setLevel",
        "notifications/cancelled",
        "notifications/initialized",
        "notifications/progress",
        "notifications/roots/list_changed",
        "ping",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "server/discover",
        "subscriptions/listen",
        "tools/list",
        *_TARGETS,
    }
)
_SESSION: Final = "mcp-session-id"
_PACKAGES: Final = frozenset({"mcp", "fastmcp"})


class McpMessage:
    """One message of a client, recorded on the root span of the HTTP request that brought it.

    As a context manager it makes the request's trace current: a server handles a message in a task of its
    session, whose context is that of the request that opened the session. ``target`` is the name of the tool
    or prompt, or the URI of the resource, as the client sent it.
    """

    def __init__(self, trace: LiveTrace, method: str, target: str | None) -> None:
        self._trace = trace
        self._method = method
        self.target = target

    @classmethod
    def begin(
        cls,
        request: Any,
        method: str,
        params: Mapping[str, Any],
        request_id: str | int | None = None,
        version: str | None = None,
    ) -> McpMessage | None:
        """Record method and target; ``None`` without a traced request, and for a call inside another call."""
        trace = getattr(request, "scope", {}).get(SCOPE_KEY)
        if not isinstance(trace, LiveTrace) or trace.over or _METHOD in trace.root.attributes:
            return None
        param, attribute = _TARGETS.get(method, (None, ""))
        given = None if param is None else params.get(param)
        target = None if given is None or isinstance(given, (dict, list)) else str(given)
        given_session = request.headers.get(_SESSION)
        session = given_session and clean_value(_SESSION.encode(), given_session.encode("latin-1"))
        attributes = {
            "mcp.protocol.version": version,
            "jsonrpc.request.id": None if request_id is None else str(request_id),
            "mcp.session.id": session or None,
            "gen_ai.operation.name": "execute_tool" if method == "tools/call" else None,
            attribute: target,
        }
        trace.root.set_attributes(
            {_METHOD: method} | {key: value for key, value in attributes.items() if value is not None}
        )
        if session and keys.SESSION not in trace.info.trace_metadata:
            trace.add_metadata({keys.SESSION: session})
        return cls(trace, method, target)

    def __enter__(self) -> None:
        self._tokens: Tokens = enter(self._trace, self._trace.root)

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        leave(self._tokens)

    def name(self, target: str | None, *, succeeded: bool) -> None:
        """Name the trace: ``tools/call add``, or ``tools/call`` if ``target`` is ``None``.

        The name of a method that is not in the protocol is used only if the call ``succeeded``.
        """
        root, request = self._trace.root, self._trace.request
        if root.name != getattr(request, "method", None):
            return  # the app has renamed it
        if self._method in _METHODS or (succeeded and not self._method.startswith("notifications/")):
            root.name = self._method if target is None else f"{self._method} {target}"

    def failed(self, error: BaseException, *, in_tool: bool = False) -> None:
        """Record a JSON-RPC error, or with ``in_tool`` a result whose ``isError`` is true."""
        code = getattr(getattr(error, "error", None), "code", None)  # of a JSON-RPC error
        self._set_error("tool_error" if in_tool else type(error).__qualname__ if code is None else str(code))
        if code is not None:
            self._trace.root.set_attribute("rpc.response.status_code", str(code))
        self._trace.root.record_exception(_origin(error))

    def result_failed(self, content: Iterable[Any]) -> None:
        """Record a result whose ``isError`` is true, with its text, if no exception is known."""
        texts = (
            item.get("text") if isinstance(item, Mapping) else getattr(item, "text", "") for item in content
        )
        self._set_error("tool_error")
        self._trace.root.set_status(SpanStatusCode.ERROR, next((str(text) for text in texts if text), ""))

    def _set_error(self, kind: str) -> None:
        self._trace.root.set_attribute("error.type", kind)


def _origin(error: BaseException) -> BaseException:
    """Return the exception of the app, for which the packages raise one of their own or a built-in one."""
    while _raised_in(error) in _PACKAGES:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None:
            break
        error = cause
    return error


def _raised_in(error: BaseException) -> str:
    """Return the top-level package of the module that raised an exception."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return "" if last is None else str(last.tb_frame.f_globals.get("__name__")).partition(".")[0]
