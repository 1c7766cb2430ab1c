"""A collector: takes requests, or says why not."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from ..exceptions import StoreError, StoreUnavailableError
from ..ledger import ledger
from .answers import Answer
from .connection import FAILURES, Connection
from .endpoint import Endpoint

if TYPE_CHECKING:
    from ssl import SSLContext

# OTLP/HTTP, "Retryable Response Codes", and the one that HTTP itself calls so.
_RETRYABLE: Final = frozenset({408, 429, 502, 503, 504})
# What a single span among many may be to blame for.
_DIVISIBLE: Final = frozenset({400, 413, 422})
_TOO_LARGE: Final = 413
_UNSUPPORTED: Final = 415

_MAX_BODY: Final = 4_000_000
_SMALLEST_BODY: Final = 64_000
_MAX_SERVER_ERRORS: Final = 6
_LONGEST_PAUSE_S: Final = 120.0
_GZIP_LEVEL: Final = 1
_GZIP_FORMAT: Final = 31
_SHORTEST_SECRET: Final = 4


class RefusedError(Exception):
    """A request that will never be taken as it is.

    ``divisible``: parts of it may be. ``unsupported``: the collector does not read this encoding.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.divisible = status in _DIVISIBLE
        self.unsupported = status == _UNSUPPORTED


class Collector:
    """What is known of a collector: where it is, how to ask, how much it takes, when it wants to be asked.

    ``max_body`` is how long a request may be before compression. Not safe for threads.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        headers: Mapping[str, str],
        timeout: float,
        gzip: bool,
        ssl_context: SSLContext | None,
        environ: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        self.endpoint = endpoint
        self.max_body = _MAX_BODY
        self._timeout = timeout
        self._gzip = gzip
        self._ssl_context = ssl_context
        self._environ = environ
        self._clock = clock
        self._headers = dict(headers)
        if endpoint.authorization:
            self._headers.setdefault("authorization", endpoint.authorization)
        self._secrets = [value for value in self._headers.values() if len(value) >= _SHORTEST_SECRET]
        self._server_errors = 0
        self._not_before = clock()
        self._connect()

    def _connect(self) -> None:
        self._connection = Connection(
            self.endpoint, timeout=self._timeout, ssl_context=self._ssl_context, environ=self._environ
        )

    def leave_to_parent(self) -> None:
        """In a forked child: the parent's connection is neither used nor closed."""
        _inherited.append(self._connection)
        self._connect()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def check_pause(self) -> None:
        """Go on unless the collector has said when to come back.

        Raises:
            StoreUnavailableError: it is too early.
        """
        left = self._not_before - self._clock()
        if left > 0:
            raise StoreUnavailableError(self._told(f"asked to wait, {left:.1f} s more"))

    def send(self, parts: Iterable[bytes], content_type: str, count: int) -> None:
        """Send a request of ``count`` spans; its body comes in parts.

        Raises:
            StoreUnavailableError: the collector did not take it now.
            RefusedError: it never will.
        """
        headers = {"content-type": content_type, **self._headers}
        if self._gzip:
            body, size = _compressed(parts)
            headers["content-encoding"] = "gzip"
        else:
            body = list(parts)
            size = sum(map(len, body))
        try:
            answer = self._connection.post(body, headers)
        except FAILURES as error:
            raise StoreUnavailableError(self._told(f"{type(error).__name__}: {error}")) from error
        if 200 <= answer.status < 300:
            self._accept(answer, count)
        else:
            self._judge(answer, size)

    def _accept(self, answer: Answer, count: int) -> None:
        """OTLP/HTTP, "Partial Success": what was rejected must not be sent again."""
        self._server_errors = 0
        partial = answer.partial_success()
        if rejected := min(partial.rejected_spans, count):
            ledger.dropped("spans_rejected", rejected)
        if rejected or partial.message:
            message = self._told(f"rejected {rejected} of {count} spans: {partial.message}")
            ledger.failed("OTLP collector", StoreError(message))

    def _judge(self, answer: Answer, size: int) -> None:
        """Raise for an answer that is no success."""
        status = answer.status
        told = self._told(f"answered {status}: {answer.message()}")
        if status in _RETRYABLE:
            if (pause := answer.pause()) is not None:
                self._not_before = self._clock() + min(pause, _LONGEST_PAUSE_S)
            raise StoreUnavailableError(told)
        if status >= 500 and self._server_errors < _MAX_SERVER_ERRORS:
            self._server_errors += 1  # for ever, a request that makes it fail would hold up all others
            raise StoreUnavailableError(told)
        self._server_errors = 0
        if status == _TOO_LARGE:
            self.max_body = min(self.max_body, max(size // 2, _SMALLEST_BODY))
        raise RefusedError(told, status)

    def _told(self, message: str) -> str:
        """The sentence for the log, without what was sent in headers."""
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return f"{self.endpoint.url} {message}"


def _compressed(parts: Iterable[bytes]) -> tuple[list[bytes], int]:
    """The parts in gzip, and how long they were."""
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    compressed, size = [], 0
    for part in parts:
        compressed.append(compressor.compress(part))
        size += len(part)
    compressed.append(compressor.flush())
    return [b"".join(compressed)], size


# Kept for ever: another thread of the parent may have been at work in one when the process forked.
_inherited: list[Connection] = []
