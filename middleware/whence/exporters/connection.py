"""One keep-alive connection to a server, over the standard library's HTTP client."""

from __future__ import annotations

import re
import select
import ssl
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from http.client import (
    BadStatusLine,
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
)
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from .answers import Answer
from .endpoint import Endpoint

_MAX_ANSWER: Final = 64 * 1024
_MAX_PIECE: Final = 64 * 1024
_MAX_LINE: Final = 64 * 1024
_MAX_HEADERS: Final = 200
_SURELY_ALIVE_S: Final = 0.2
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})[ \r\n]")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

FAILURES: Final = (OSError, HTTPException)
"""What ``Connection.ask`` raises when no answer came."""


class Connection:
    """Sends requests one after another, and connects anew when the other side has hung up.

    ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` are heeded, as ``requests`` and ``httpx`` do, except
    for the loopback. Certificates are verified. Redirections are not followed. ``max_answer`` is how much of
    an answer is read. Not safe for threads.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout: float,
        ssl_context: ssl.SSLContext | None,
        environ: Mapping[str, str],
        max_answer: int = _MAX_ANSWER,
    ) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._max_answer = max_answer
        self._ssl_context = ssl_context
        self._proxy = _proxy_for(endpoint, environ)
        self._http: _WholeRequests | None = None
        self._answered = 0.0

    def ask(
        self, method: str, target: str, headers: Mapping[str, str], body: Sequence[bytes] | None = None
    ) -> Answer:
        """Send a request, its body in parts, and wait for its answer.

        Raises:
            OSError: it did not come.
            HTTPException: it was no HTTP.
        """
        self.begin(method, target, headers, body)
        return self.finish()

    def begin(
        self, method: str, target: str, headers: Mapping[str, str], body: Sequence[bytes] | None = None
    ) -> None:
        """Send a request; ``finish`` waits for its answer. Raises what ``ask`` does."""
        http = self._http
        if http is None or http.sock is None or self._has_ended(http):
            self.close()
            http = self._http = self._connect()
        if self._proxy and self._endpoint.scheme == "http":
            target = f"http://{_authority(self._endpoint)}{target}"
            headers = {**headers, **self._proxy.headers}
        if body is not None:
            headers = {**headers, "content-length": str(sum(map(len, body)))}
        try:
            http.ask(method, target, body, dict(headers))
        except BaseException:
            self.close()
            raise

    def finish(self) -> Answer:
        """The answer to what ``begin`` has sent. Raises what ``ask`` does."""
        http = self._http
        if http is None or http.sock is None:
            raise HTTPException("the connection was closed before its answer came")
        try:
            return self._read(http.getresponse())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up; the next request connects anew."""
        if self._http is not None:
            self._http.close()

    def _connect(self) -> _WholeRequests:
        endpoint, proxy = self._endpoint, self._proxy
        host, port = (proxy.host, proxy.port) if proxy else (endpoint.host, endpoint.port)
        if endpoint.scheme == "http":
            http = _WholeRequests(host, port, timeout=self._timeout)
        else:
            context = self._ssl_context or ssl.create_default_context()
            http = _WholeRequestsOverTLS(host, port, timeout=self._timeout, context=context)
            if proxy:
                http.set_tunnel(endpoint.host, endpoint.port, proxy.headers)
        http.response_class = _Response
        return http

    def _read(self, response: Any) -> Answer:
        """The status is the answer: a body that breaks off takes nothing back."""
        try:
            body = response.read(self._max_answer)
            whole = response.isclosed() or not response.read(1)
        except FAILURES:
            body, whole = b"", False
        if not whole:
            self.close()
        self._answered = time.monotonic()
        content_type = response.fields.get("content-type", "").lower()
        return Answer(response.status, content_type, response.fields.get("retry-after"), body)

    def _has_ended(self, http: HTTPConnection) -> bool:
        """Whether a connection that was idle has something to read: that can only be its end."""
        if time.monotonic() - self._answered < _SURELY_ALIVE_S:
            return False
        poll = select.poll()
        poll.register(http.sock, select.POLLIN)
        return bool(poll.poll(0))


class _WholeRequests(HTTPConnection):
    """Sends a request at once; the standard library's sends its headers first, which is a packet more."""

    held: list[bytes] | None = None

    def send(self, data: Any) -> None:
        """Send, or keep for later what is a part of a request."""
        if self.held is None:
            super().send(data)
        else:
            self.held.append(data)

    def ask(self, method: str, target: str, body: Sequence[bytes] | None, headers: dict[str, str]) -> None:
        """Send a request, its body in parts."""
        if self.sock is None:
            self.connect()
        self.held = []
        try:
            self.request(method, target, None, headers)
            parts = [*self.held, *(body or ())]
        finally:
            self.held = None
        if sum(map(len, parts)) <= _MAX_PIECE:
            parts = [b"".join(parts)]
        for part in parts:
            self.send(part)


class _WholeRequestsOverTLS(_WholeRequests, HTTPSConnection):
    """The same, encrypted."""


class _Response(HTTPResponse):
    """One that is read in a quarter of the time: the standard library's makes an email of the headers.

    They must be there to their end, too: the standard library's takes "HTTP/1.1 200" for 200.
    """

    def begin(self) -> None:
        """Read the status and the headers."""
        status = 100
        while status < 200 and status != 101:
            self.version, status = self._status()
            self.fields = self._fields()
        self.code = self.status = status
        self.chunked = self.fields.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        length = self.fields.get("content-length", "")
        self.length = int(length) if length.isascii() and length.isdigit() and not self.chunked else None
        if status in {204, 304}:
            self.length = 0
        told = self.fields.get("connection", "").lower()
        self.will_close = "close" in told or (self.version == 10 and "keep-alive" not in told)
        self.will_close = self.will_close or (self.length is None and not self.chunked)

    def _status(self) -> tuple[int, int]:
        match = _STATUS_LINE.match(line := self._line())
        if match is None:
            raise BadStatusLine(repr(line))
        return 10 + int(match[1]), int(match[2])

    def _fields(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        while (line := self._line()) not in {b"\r\n", b"\n"}:
            name, _, value = line.decode("latin-1").partition(":")
            fields[name.strip().lower()] = value.strip()
            if len(fields) > _MAX_HEADERS:
                raise BadStatusLine("too many headers")
        return fields

    def _line(self) -> bytes:
        line: bytes = self.fp.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise IncompleteRead(line)
        return line


class _Proxy:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.headers: dict[str, str] = {}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self.headers["proxy-authorization"] = "Basic " + b64encode(pair.encode()).decode()


def _proxy_for(endpoint: Endpoint, environ: Mapping[str, str]) -> _Proxy | None:
    name = f"{endpoint.scheme}_proxy"
    # In a CGI process HTTP_PROXY is what a client sent as "Proxy:" (httpoxy).
    upper = "" if name == "http_proxy" and "REQUEST_METHOD" in environ else environ.get(name.upper(), "")
    url = environ.get(name) or upper
    excluded = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not url or endpoint.host in _LOOPBACK:
        return None
    if proxy_bypass_environment(f"{endpoint.host}:{endpoint.port}", {"no": excluded}):
        return None
    return _Proxy(url)


def _authority(endpoint: Endpoint) -> str:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port}"
