"""One keep-alive connection to a server, over the standard library's HTTP client."""

from __future__ import annotations

import selectors
import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from .answers import Answer
from .endpoint import Endpoint

_MAX_ANSWER: Final = 64 * 1024
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
        self._http: HTTPConnection | None = None

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
        if http is None or http.sock is None or _has_ended(http):
            self.close()
            http = self._http = self._connect()
        if self._proxy and self._endpoint.scheme == "http":
            target = f"http://{_authority(self._endpoint)}{target}"
            headers = {**headers, **self._proxy.headers}
        if body is not None:
            headers = {**headers, "content-length": str(sum(map(len, body)))}
        try:
            http.request(method, target, body, headers)
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

    def _connect(self) -> HTTPConnection:
        endpoint, proxy = self._endpoint, self._proxy
        host, port = (proxy.host, proxy.port) if proxy else (endpoint.host, endpoint.port)
        if endpoint.scheme == "http":
            http = HTTPConnection(host, port, timeout=self._timeout)
        else:
            context = self._ssl_context or ssl.create_default_context()
            http = HTTPSConnection(host, port, timeout=self._timeout, context=context)
            if proxy:
                http.set_tunnel(endpoint.host, endpoint.port, proxy.headers)
        http.response_class = _Response
        return http

    def _read(self, response: HTTPResponse) -> Answer:
        """The status is the answer: a body that breaks off takes nothing back."""
        try:
            body = response.read(self._max_answer)
            whole = response.isclosed() or not response.read(1)
        except FAILURES:
            body, whole = b"", False
        if not whole:
            self.close()
        content_type = response.getheader("content-type", "").lower()
        return Answer(response.status, content_type, response.getheader("retry-after"), body)


class _Response(HTTPResponse):
    """One whose headers must be there to their end: the standard library's takes "HTTP/1.1 200" for 200."""

    def begin(self) -> None:
        file: Any = self.fp
        lines: Any = _Lines(file)
        self.fp = lines
        try:
            super().begin()
        finally:
            if self.fp is lines:  # else there is no body, and it is closed
                self.fp = file
        if lines.last not in {b"\r\n", b"\n"}:
            raise IncompleteRead(lines.last)


class _Lines:
    """Reads lines and remembers the last."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.close = file.close
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._file.readline(limit)
        return self.last


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


def _has_ended(http: HTTPConnection) -> bool:
    """Whether an idle connection has something to read: that can only be its end."""
    with selectors.DefaultSelector() as selector:
        selector.register(http.sock, selectors.EVENT_READ)
        return bool(selector.select(timeout=0))
