"""One outgoing HTTP request as a CLIENT span, whatever client makes it.

Follows OpenTelemetry's semantic conventions for HTTP client spans:
https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final

from ..asgi.routes import OTHER_METHOD, known_method
from ..context import Tokens, enter, leave
from ..fluent import end_span
from ..model import SpanStatus, SpanStatusCode, SpanType
from ..recorder import LiveSpan, LiveTrace

__all__ = ["HttpCall"]

_MAX_METHOD: Final = 64


class HttpCall:
    """The span of one request: current inside ``with``, and ended by ``end`` or by what the block raises."""

    __slots__ = ("_tokens", "span")

    def __init__(
        self, trace: LiveTrace, parent: LiveSpan | None, method: str, attributes: dict[str, Any]
    ) -> None:
        known = known_method({"method": method})
        other = known == OTHER_METHOD
        self.span = trace.start_span("HTTP" if other else known, SpanType.CLIENT, parent)
        self.span.attributes["http.request.method"] = known
        if other:
            self.span.attributes["http.request.method_original"] = method[:_MAX_METHOD]
        self.span.attributes |= attributes

    def __enter__(self) -> None:
        self._tokens: Tokens = enter(self.span.trace, self.span)

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        leave(self._tokens)
        if error is not None:
            self.end(error)

    def answered(self, status: int, version: str | None) -> None:
        """The head of the response is here; 4xx and 5xx are errors of the call."""
        attributes = self.span.attributes
        attributes["http.response.status_code"] = status
        if version:
            attributes["network.protocol.version"] = version
        if status >= 400:
            attributes["error.type"] = str(status)
            self.span.status = SpanStatus(SpanStatusCode.ERROR, f"HTTP {status}")

    def end(self, error: BaseException | None = None) -> None:
        """The body has ended, or something was raised before; a second call does nothing."""
        if self.span.end_time_ns is not None:
            return
        if error is not None and not isinstance(error, GeneratorExit):
            kind = type(error)
            module = "" if kind.__module__ == "builtins" else kind.__module__ + "."
            self.span.attributes["error.type"] = module + kind.__qualname__
        end_span(self.span, error)
