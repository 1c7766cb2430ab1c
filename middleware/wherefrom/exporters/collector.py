"""An OTLP/HTTP collector: sends it requests and reads what it accepted."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, Final

import orjson

from ..exceptions import StoreError
from ..otel.otlp import CONTENT_TYPE
from ..otel.protobuf import read_fields
from ..process import ledger, process
from .endpoint import Endpoint
from .http import NotNowError, RefusedError, Remote, Response, one_line

MAX_BODY: Final = 4_000_000
"""Bytes of a request before compression, at most."""

_TOO_LARGE: Final = 413
_SMALLEST_BODY: Final = 64_000  # a collector that refuses this much for its size refuses everything
_MAX_SERVER_ERRORS: Final = 6  # then the request itself is taken to be the cause
_GZIP_LEVEL: Final = 1  # higher levels cost several times the CPU for 10 % less
_GZIP_FORMAT: Final = 31  # zlib: a window of 2**15 in gzip's format


class Collector(Remote):
    """A collector, and the size of the requests that it accepts.

    ``max_body`` are the bytes of a request before compression. ``options`` are those of ``Remote``.
    """

    def __init__(self, endpoint: Endpoint, *, gzip: bool, max_body: int = MAX_BODY, **options: Any) -> None:
        super().__init__(endpoint, **options)
        self.max_body = max_body
        self._gzip = gzip
        self._server_errors = 0
        self._connection = self.connect()

    def abandon_to_parent(self) -> None:
        """In a forked child: open a new connection; the parent may be using its own."""
        process.never_close(self._connection)
        self._connection = self.connect()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def send(self, parts: Iterable[bytes], count: int, *, retry_failures: bool = True) -> None:
        """Send a request of ``count`` spans, whose body comes in parts.

        ``retry_failures``: a status of 500 or more is raised as ``NotNowError``, up to six times in a row.

        Raises:
            NotNowError: the collector does not accept it now.
            RefusedError: it never will.
        """
        headers = {"content-type": CONTENT_TYPE, **self.headers}
        if self._gzip:
            body, size = _compressed(parts)
            headers["content-encoding"] = "gzip"
        else:
            body = b"".join(parts)
            size = len(body)
        response = self.request(self._connection, "POST", self.endpoint.target, headers, body)
        try:
            self.raise_for_status(response)
        except RefusedError as refusal:
            if retry_failures:
                self._check_failures(refusal)
            if refusal.status == _TOO_LARGE:
                self.max_body = min(self.max_body, max(size // 2, _SMALLEST_BODY))
            raise
        self._accept(response, count)

    def _accept(self, response: Response, count: int) -> None:
        """Count rejected spans as dropped: OTLP/HTTP, "Partial Success", forbids to send them again."""
        self._server_errors = 0
        rejected, message = _partial_success(response)
        if rejected := min(rejected, count):
            ledger.dropped("spans_rejected", rejected)
        if rejected or message:
            described = self.describe(f"rejected {rejected} of {count} spans: {message}")
            ledger.failed("OTLP collector", StoreError(described))

    def _check_failures(self, refusal: RefusedError) -> None:
        """Raise ``NotNowError`` if the collector failed and may accept the same request next time."""
        if refusal.status >= 500 and self._server_errors < _MAX_SERVER_ERRORS:
            self._server_errors += 1  # without a limit, a request that makes it fail would block all others
            raise NotNowError(str(refusal), refusal.status) from refusal
        self._server_errors = 0


def _partial_success(response: Response) -> tuple[int, str]:
    """``ExportTraceServiceResponse.partial_success``: the number of rejected spans, and the reason.

    A reason without rejected spans is a warning. A body that cannot be parsed is full success. Some
    collectors and proxies answer JSON to protobuf.
    """
    try:
        if "protobuf" in response.content_type:
            partial = read_fields(response.body).get(1, b"")
            fields = read_fields(partial) if isinstance(partial, bytes) else {}
            rejected = fields.get(1, 0)
            if not isinstance(rejected, int) or rejected >= 1 << 63:  # a negative int64
                rejected = 0
            return rejected, one_line(fields.get(2, b""))
        data = orjson.loads(response.body) if response.body else {}
        found = data.get("partialSuccess") or data.get("partial_success") or {}
        message = found.get("errorMessage") or found.get("error_message") or ""
        rejected = int(found.get("rejectedSpans") or found.get("rejected_spans") or 0)
        return max(rejected, 0), one_line(str(message))
    except (ValueError, TypeError, AttributeError):
        return 0, ""


def _compressed(parts: Iterable[bytes]) -> tuple[bytes, int]:
    """The parts compressed by gzip, and their size before."""
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    compressed, size = [], 0
    for part in parts:
        compressed.append(compressor.compress(part))
        size += len(part)
    compressed.append(compressor.flush())
    return b"".join(compressed), size
