"""httpx: each request of a client a CLIENT span of the current trace, and the trace's headers on it.

    client = httpx.AsyncClient(transport=AsyncTraceTransport())

Or ``httpx.Client(transport=TraceTransport())``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Self

from ..exceptions import MissingExtraError
from ..fluent import current_span, current_trace
from ..ledger import ledger
from ..outgoing import identity_headers, trace_headers
from ..recorder import LiveTrace
from .calls import HttpCall
from .hosts import Hosts
from .urls import public_url

try:
    import httpx
except ImportError as error:
    raise MissingExtraError("wherefrom.integrations.httpx", "httpx") from error

__all__ = ["AsyncTraceTransport", "TraceTransport"]

_PORTS: Final = {"http": 80, "https": 443}


class TraceTransport(httpx.BaseTransport):
    """Wraps a transport of ``httpx.Client``: inside a trace, each request is a span and carries the trace on.

    ``traceparent``, ``tracestate`` and ``baggage`` go to every host, unless the request has a
    ``traceparent`` of its own; the ids of request, session and user go only to the hosts of ``forward_to``
    (``"api.internal"`` that one, ``".internal"`` all below it), redirects included. The span ends with the
    response's body. Outside of a trace the request passes through as it is.

    httpx looks at ``HTTP_PROXY`` and takes ``verify``, ``http2`` and the like only for a transport that it
    makes itself: give those to ``transport``, ``TraceTransport(httpx.HTTPTransport(http2=True))``.

    Args:
        transport: What sends the requests; ``httpx.HTTPTransport()`` when not given.
        forward_to: Hosts that may know request, session and user.

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
    """A response's body, with whose end the call ends."""

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
    """A response's body, with whose end the call ends."""

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
    """Start the span, and make the request that goes out; without a trace the request goes as it is."""
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
    """The request with our headers, those that it has left as they are.

    A new one: httpx makes retries and redirects from the old one's headers, and those are not for every host.
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
