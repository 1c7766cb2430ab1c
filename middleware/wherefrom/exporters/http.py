"""An HTTP client on httpcore, with one deadline and one size limit for a whole response.

httpcore is the transport of httpx and is installed with it. The client of httpx does not fit: its timeouts
are for each read, so a server that sends a byte now and then blocks it for ever; it logs every URL at INFO;
and instrumentation of httpx would trace our own requests.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from .._capture.values import cut
from .._clock import monotonic
from ..exceptions import MissingExtraError, StoreUnavailableError
from ..otel.protobuf import read_fields
from .endpoint import Endpoint, Proxy

try:
    import httpcore
except ImportError as error:
    raise MissingExtraError("export over HTTP", "httpx") from error

# OTLP/HTTP, "Retryable Response Codes", and 408, which RFC 9110 allows to repeat.
RETRYABLE: Final = frozenset({408, 429, 502, 503, 504})

MAX_BODY: Final = 64 * 1024
"""Bytes that are read of a response body which is only a message."""

# A single item of the request may have caused these.
_DIVISIBLE: Final = frozenset({400, 413, 422, 500})
_LONGEST_PAUSE_S: Final = 120.0  # a wrong ``Retry-After`` must not stop the export for hours
_SHORTEST_SECRET: Final = 4  # shorter values occur in ordinary text
_MAX_MESSAGE: Final = 300  # a proxy may answer with a whole page
_MESSAGE_KEYS: Final = ("message", "detail", "error", "errorMessage", "error_message", "description")
_PIECE: Final = 64 * 1024
_NO_WAITING: Final = {"timeout": {"pool": 0.0}}
_FAILURES: Final = (
    OSError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
)


class RefusedError(Exception):
    """The server refuses the request for good, with ``status``. ``divisible``: it may accept a part of it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        self.divisible = status in _DIVISIBLE


class NotNowError(StoreUnavailableError):
    """The server does not accept the request now; ``status`` is ``None`` if it did not respond."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Response:
    """A response. ``body`` is the part that was read; ``problem`` is the reason why it is incomplete."""

    status: int
    content_type: str = ""
    retry_after: str | None = None
    body: bytes = b""
    problem: str | None = None

    def message(self) -> str:
        """The server's error message: ``google.rpc.Status.message``, or a text in the body."""
        try:
            if "protobuf" in self.content_type:
                return one_line(read_fields(self.body).get(2, b""))
            if "json" in self.content_type:
                return one_line(_message_in(orjson.loads(self.body)))
        except ValueError:
            pass
        return one_line(self.body)

    def pause(self, now: datetime | None = None) -> float | None:
        """Seconds that ``Retry-After`` asks for, as a number or a date (RFC 9110, section 10.2.3)."""
        value = (self.retry_after or "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError):
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max((moment - (now or datetime.now(UTC))).total_seconds(), 0.0)


class Connection:
    """Sends requests one after another on one connection, and reconnects after the server closed it.

    ``timeout`` in seconds is for a whole exchange: connecting, sending, and the response to its last byte.
    Redirects are not followed, bodies not decompressed. Not thread-safe.
    """

    def __init__(
        self, endpoint: Endpoint, *, timeout: float, ssl_context: ssl.SSLContext | None, proxy: Proxy | None
    ) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._ssl_context = ssl_context
        self._proxy = proxy
        self._network = _Network()
        self._pool: httpcore.ConnectionPool | None = None

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        max_body: int = MAX_BODY,
    ) -> Response:
        """Send a request and read its response, at most ``max_body`` bytes of its body.

        Raises:
            OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException: no status came.
        """
        if self._pool is None:
            self._pool = self._new_pool()
        endpoint = self._endpoint
        url = httpcore.URL(
            scheme=endpoint.scheme.encode(),
            host=endpoint.bracketed_host.encode(),
            port=endpoint.port,
            target=target.encode(),
        )
        pairs = [(b"host", endpoint.authority.encode())]
        pairs += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        self._network.deadline = monotonic() + self._timeout
        try:
            with self._pool.stream(
                method, url, headers=pairs, content=body, extensions=_NO_WAITING
            ) as response:
                return _read(response, max_body)
        except httpcore.TimeoutException as error:
            raise TimeoutError(f"no response in {self._timeout:g} s") from error

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _new_pool(self) -> httpcore.ConnectionPool:
        options: dict[str, Any] = {"max_connections": 1, "network_backend": self._network}
        if self._endpoint.scheme == "https":
            options["ssl_context"] = self._ssl_context or ssl.create_default_context()
        if self._proxy is None:
            return httpcore.ConnectionPool(**options)
        return httpcore.HTTPProxy(self._proxy.url, proxy_auth=self._proxy.credentials, **options)


def _read(response: httpcore.Response, max_body: int) -> Response:
    """Read the body. One that breaks off does not matter: the server has sent its status."""
    fields = {name.lower(): value.decode("latin-1") for name, value in response.headers}
    body, problem = bytearray(), None
    try:
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > max_body:
                problem = f"more than {max_body:,} bytes"
                break
    except _FAILURES as error:
        problem = f"a response that breaks off: {_named(error)}"
    del body[max_body:]
    content_type, retry_after = fields.get(b"content-type", "").lower(), fields.get(b"retry-after")
    return Response(response.status, content_type, retry_after, bytes(body), problem)


class _Network(httpcore.NetworkBackend):
    """The network until ``deadline``, for which each operation gets the time that is left."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()
        self.deadline = 0.0

    def left(self, timeout: float | None = None) -> float:
        """Seconds until the deadline, at most ``timeout``.

        Raises:
            TimeoutException: the deadline is past.
        """
        if (left := self.deadline - monotonic()) <= 0:
            raise httpcore.ReadTimeout("timed out")
        return left if timeout is None else min(left, timeout)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect; an IPv6 address is in brackets."""
        stream = self._backend.connect_tcp(
            host.strip("[]"), port, self.left(timeout), local_address, socket_options
        )
        return _Stream(stream, self)


class _Stream(httpcore.NetworkStream):
    """A connection that is used until the network's deadline."""

    def __init__(self, stream: httpcore.NetworkStream, network: _Network) -> None:
        self._stream = stream
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._network.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(
            0, len(buffer), _PIECE
        ):  # the timeout is for one call, and a slow server would restart it
            self._stream.write(buffer[start : start + _PIECE], self._network.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        name = server_hostname and server_hostname.strip("[]")
        stream = self._stream.start_tls(ssl_context, name, self._network.left(timeout))
        return _Stream(stream, self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class Remote:
    """A server: its endpoint, the headers of its requests, and the pause that it requested.

    The values of ``headers`` never appear in a message. ``retryable`` are the statuses after which the server
    may accept the same request later.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        headers: Mapping[str, str],
        timeout: float,
        ssl_context: ssl.SSLContext | None,
        environ: Mapping[str, str],
        clock: Callable[[], float],
        retryable: frozenset[int] = RETRYABLE,
    ) -> None:
        self.endpoint = endpoint
        self.headers = dict(headers)
        if endpoint.authorization:
            self.headers.setdefault("authorization", endpoint.authorization)
        self._secrets = [value for value in self.headers.values() if len(value) >= _SHORTEST_SECRET]
        self._timeout = timeout
        self._ssl_context = ssl_context
        self._proxy = endpoint.proxy(environ)
        self._clock = clock
        self._retryable = retryable
        self._not_before = clock()

    def connect(self) -> Connection:
        """Return a new connection."""
        return Connection(
            self.endpoint, timeout=self._timeout, ssl_context=self._ssl_context, proxy=self._proxy
        )

    def request(self, connection: Connection, *request: Any, **options: Any) -> Response:
        """Return the response, whatever its status; the arguments are those of ``Connection.request``.

        Raises:
            NotNowError: no response came.
        """
        try:
            return connection.request(*request, **options)
        except _FAILURES as error:
            raise NotNowError(self.describe(f"cannot be reached: {_named(error)}")) from error

    @property
    def is_paused(self) -> bool:
        """Whether the server requested a pause that is not over."""
        return self._not_before > self._clock()

    def check_pause(self) -> None:
        """Check that no pause is on.

        Raises:
            NotNowError: the server requested a pause that is not over.
        """
        left = self._not_before - self._clock()
        if left > 0:
            raise NotNowError(self.describe(f"asked to wait, {left:.1f} s more"))

    def raise_for_status(self, response: Response) -> None:
        """Check that the response is a success.

        Raises:
            NotNowError: the server does not accept the request now.
            RefusedError: it never will, or something in the request makes it fail.
        """
        if 200 <= response.status < 300:
            return
        message = self.describe(f"answered {response.status}: {response.message()}")
        if response.status not in self._retryable:
            raise RefusedError(message, response.status)
        if (pause := response.pause()) is not None:
            self._not_before = self._clock() + min(pause, _LONGEST_PAUSE_S)
        raise NotNowError(message, response.status)

    def describe(self, message: str) -> str:
        """Return a sentence about the server for the log, with header values masked."""
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return f"{self.endpoint.url} {message}"


def _named(error: Exception) -> str:
    """The error message with the exception's name; httpcore wraps the exceptions of sockets."""
    wrapped = error.args[0] if error.args else None
    return f"{error} ({type(wrapped if isinstance(wrapped, Exception) else error).__name__})"


def _message_in(data: Any) -> str:
    if isinstance(data, Mapping):
        found = next((data[key] for key in _MESSAGE_KEYS if data.get(key)), None)
        return _message_in(found) if found is not None else orjson.dumps(data).decode()
    return data if isinstance(data, str) else orjson.dumps(data).decode()


def one_line(text: str | bytes | int) -> str:
    """A server's text as one short printable line for the log; empty for anything but text."""
    if isinstance(text, bytes):
        text = text[: _MAX_MESSAGE * 16].decode(errors="replace")
    if not isinstance(text, str):
        return ""
    words = "".join([char if char.isprintable() else " " for char in text[: _MAX_MESSAGE * 4]]).split()
    return cut(" ".join(words), _MAX_MESSAGE)
