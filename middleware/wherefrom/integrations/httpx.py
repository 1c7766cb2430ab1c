"""httpx: transports that record each request as a span and send the trace on.

client = httpx.Client(transport=TraceTransport(forward_to="api.internal"))
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote_plus

from ..asgi.attributes import OTHER_METHOD, known_method
from ..context import Tokens, enter, leave
from ..exceptions import MissingExtraError
from ..model import SpanStatus, SpanStatusCode, SpanType
from ..process import ledger
from ..tracing.api import current_span, current_trace, end_span
from ..tracing.inject import identity_headers, trace_headers
from ..tracing.live import LiveSpan, LiveTrace

REDACTED: Final = "REDACTED"
_MAX_URL: Final = 2048  # longer URLs are truncated

_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
# Matched against the key in lower case without its separators: ``X-Amz-Signature`` is ``xamzsignature``.
_ANYWHERE: Final = re.compile(
    r"token|secret|passw|pwd|passphrase|credential|signature|jwt|assertion|bearer|authoriz|session|cookie"
    r"|passcode|verifier"
)
_ENDING: Final = re.compile(r"(?:key|keyid|auth)$")
_WHOLE: Final = frozenset({"sig", "code", "otp", "pin", "sid", "pass"})


def public_url(scheme: str, authority: str, target: str) -> str:
    """Return a URL for ``url.full``: the values of query keys that look like credentials are ``REDACTED``.

    ``authority`` is host and port without userinfo, and ``target`` is path and query; a fragment is never
    sent.
    """
    path, mark, query = target.partition("?")
    shown = "&".join(_public_pair(pair) for pair in query.split("&"))
    return f"{scheme}://{authority}{path}{mark}{shown}"[:_MAX_URL]


def _public_pair(pair: str) -> str:
    key, equals, value = pair.partition("=")
    return f"{key}={REDACTED}" if equals and value and _is_credential(key) else pair


def _is_credential(key: str) -> bool:
    name = _SEPARATORS.sub("", unquote_plus(key).lower())
    return name in _WHOLE or bool(_ANYWHERE.search(name) or _ENDING.search(name))


_NOT_IN_A_NAME: Final = re.compile(r"[\s/*@?#:\[\]]")


class Hosts:
    """A set of hosts: ``"api.internal"`` is that one, ``".internal"`` every one below ``internal``.

    Case, ports and the dot at the end of a full name are ignored.

    Raises:
        ValueError: an entry is not a host, so it would never match.
    """

    def __init__(self, names: str | Iterable[str] = ()) -> None:
        entries = [_entry(name) for name in ((names,) if isinstance(names, str) else names)]
        self._names = frozenset(name for name in entries if not name.startswith("."))
        self._suffixes = tuple(name for name in entries if name.startswith("."))

    def __contains__(self, host: str) -> bool:
        name = _clean(host)
        return name in self._names or name.endswith(self._suffixes)


def _entry(text: str) -> str:
    name = _clean(text)
    if not name.strip(".") or (_NOT_IN_A_NAME.search(name) and not _is_address(name)):
        raise ValueError(f"{text!r} is not a host: write one as api.internal, all below as .internal")
    return name


def _clean(host: str) -> str:
    return host.lower().strip("[]").rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


_MAX_METHOD: Final = 64  # an app may send any method, and it is part of the span's name


class HttpCall:
    """The span of one outgoing request: current inside ``with``; ``end`` or an exception ends it."""

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
        """Record status and version of the response; 4xx and 5xx are errors of the call."""
        attributes = self.span.attributes
        attributes["http.response.status_code"] = status
        if version:
            attributes["network.protocol.version"] = version
        if status >= 400:
            attributes["error.type"] = str(status)
            self.span.status = SpanStatus(SpanStatusCode.ERROR, f"HTTP {status}")

    def end(self, error: BaseException | None = None) -> None:
        """End the span when the body has ended or something was raised; a second call does nothing."""
        if self.span.end_time_ns is not None:
            return
        if error is not None and not isinstance(error, GeneratorExit):
            kind = type(error)
            module = "" if kind.__module__ == "builtins" else kind.__module__ + "."
            self.span.attributes["error.type"] = module + kind.__qualname__
        end_span(self.span, error)


try:
    import httpx
except ImportError as error:
    raise MissingExtraError("wherefrom.integrations.httpx", "httpx") from error

__all__ = ["REDACTED", "AsyncTraceTransport", "Hosts", "HttpCall", "TraceTransport", "public_url"]

_PORTS: Final = {"http": 80, "https": 443}


class TraceTransport(httpx.BaseTransport):
    """Wraps a transport of ``httpx.Client``: each request is a span and carries the trace context.

    ``traceparent``, ``tracestate`` and ``baggage`` are sent to every host, unless the request has a
    ``traceparent`` of its own. The ids of request, session and user are sent only to the hosts of
    ``forward_to`` (``"api.internal"`` is that host, ``".internal"`` all below it), also after redirects. The
    span ends with the response's body. Outside of a trace, requests are sent unchanged.

    httpx applies ``HTTP_PROXY``, ``verify``, ``http2`` and similar options only to a transport that it
    creates: pass them to ``transport``, ``TraceTransport(httpx.HTTPTransport(http2=True))``.

    Args:
        transport: The transport that sends the requests; by default ``httpx.HTTPTransport()``.
        forward_to: Hosts that get the ids of request, session and user.

    Raises:
        ValueError: an entry of ``forward_to`` is not a host.
    """

    def __init__(
        self, transport: httpx.BaseTransport | None = None, *, forward_to: str | Iterable[str] = ()
    ) -> None:
        self._transport = httpx.HTTPTransport() if transport is None else transport
        self._forward_to = Hosts(forward_to)

    def __enter__(self) -> Self:
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._transport.__exit__(exc_type, exc_value, traceback)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, as httpx calls it."""
        call, request = _begin(request, self._forward_to)
        if call is None:
            return self._transport.handle_request(request)
        with call:
            response = self._transport.handle_request(request)
            _answered(call, response)
        if isinstance(response.stream, httpx.SyncByteStream) and not response.is_closed:
            response.stream = _Body(response.stream, call)
        else:
            call.end()
        return response

    def close(self) -> None:
        """Close the wrapped transport."""
        self._transport.close()


class AsyncTraceTransport(httpx.AsyncBaseTransport):
    """``TraceTransport`` for ``httpx.AsyncClient``, around an ``httpx.AsyncHTTPTransport()`` by default."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport | None = None, *, forward_to: str | Iterable[str] = ()
    ) -> None:
        self._transport = httpx.AsyncHTTPTransport() if transport is None else transport
        self._forward_to = Hosts(forward_to)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(exc_type, exc_value, traceback)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, as httpx calls it."""
        call, request = _begin(request, self._forward_to)
        if call is None:
            return await self._transport.handle_async_request(request)
        with call:
            response = await self._transport.handle_async_request(request)
            _answered(call, response)
        if isinstance(response.stream, httpx.AsyncByteStream) and not response.is_closed:
            response.stream = _AsyncBody(response.stream, call)
        else:
            call.end()
        return response

    async def aclose(self) -> None:
        """Close the wrapped transport."""
        await self._transport.aclose()


class _Body(httpx.SyncByteStream):
    """A response body that ends its call."""

    def __init__(self, stream: httpx.SyncByteStream, call: HttpCall) -> None:
        self._stream = stream
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except BaseException as error:
            self._call.end(error)
            raise
        self._call.end()

    def close(self) -> None:
        try:
            self._stream.close()
        except BaseException as error:
            self._call.end(error)
            raise
        self._call.end()


class _AsyncBody(httpx.AsyncByteStream):
    """A response body that ends its call."""

    def __init__(self, stream: httpx.AsyncByteStream, call: HttpCall) -> None:
        self._stream = stream
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except BaseException as error:
            self._call.end(error)
            raise
        self._call.end()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        except BaseException as error:
            self._call.end(error)
            raise
        self._call.end()


def _begin(request: httpx.Request, forward_to: Hosts) -> tuple[HttpCall | None, httpx.Request]:
    """Start the span and return it with the request to send: outside a trace ``None`` and the request."""
    trace = current_trace()
    if trace is None:
        return None, request
    call = None
    try:
        call = HttpCall(trace, current_span(), request.method, _address(request.url))
        return call, _with_headers(request, trace, call, forward_to)
    except Exception as error:  # noqa: BLE001 - telemetry never hurts the host
        ledger.failed("httpx", error)
        return call, request


def _address(url: httpx.URL) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "url.full": public_url(url.scheme, url.netloc.decode("ascii"), url.raw_path.decode("ascii")),
        "server.address": url.host,
    }
    if port := url.port or _PORTS.get(url.scheme):
        attributes["server.port"] = port
    return attributes


def _with_headers(
    request: httpx.Request, trace: LiveTrace, call: HttpCall, forward_to: Hosts
) -> httpx.Request:
    """Return the request with our headers added; its own headers are not changed.

    The result is a new request: httpx builds redirects from the original's headers, and ours are not for
    every host.
    """
    headers, url = request.headers, request.url
    added = [] if "traceparent" in headers else list(trace_headers(trace, call.span))
    if url.host in forward_to or url.raw_host.decode("ascii") in forward_to:
        added += identity_headers(trace)
    ours = [(name.encode(), value.encode("latin-1")) for name, value in added if name not in headers]
    return httpx.Request(
        request.method,
        url,
        headers=[*headers.raw, *ours],
        stream=request.stream,
        extensions=request.extensions,
    )


def _answered(call: HttpCall, response: httpx.Response) -> None:
    version = response.extensions.get("http_version")
    text = version.decode("ascii", "replace") if isinstance(version, bytes) else ""
    call.answered(response.status_code, text.removeprefix("HTTP/"))
