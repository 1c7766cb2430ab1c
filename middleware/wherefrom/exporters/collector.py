"""A collector: takes requests, or says why not."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, Final

import orjson

from ..exceptions import StoreError
from ..process import ledger
from .endpoint import Endpoint
from .http import Answer, NotNowError, RefusedError, Remote, leave_to_parent, one_line
from .protobuf import read_fields

MAX_BODY: Final = 4_000_000
"""How long a request may be before compression, in bytes."""

_TOO_LARGE: Final = 413
_SMALLEST_BODY: Final = 64_000
_MAX_SERVER_ERRORS: Final = 6
_GZIP_LEVEL: Final = 1
_GZIP_FORMAT: Final = 31


class Collector(Remote):
    """What is known of a collector, and how much it takes at once.

    ``max_body`` is how long a request may be before compression. ``options`` are those of ``Remote``.
    """

    def __init__(self, endpoint: Endpoint, *, gzip: bool, max_body: int = MAX_BODY, **options: Any) -> None:
        super().__init__(endpoint, **options)
        self.max_body = max_body
        self._gzip = gzip
        self._server_errors = 0
        self._connection = self.connect()

    def leave_to_parent(self) -> None:
        """In a forked child: the parent's connection is neither used nor closed."""
        leave_to_parent(self._connection)
        self._connection = self.connect()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def send(self, parts: Iterable[bytes], content_type: str, count: int, *, bear: bool = True) -> None:
        """Send a request of ``count`` spans; its body comes in parts. ``bear`` with a collector that fails.

        Raises:
            NotNowError: the collector did not take it now.
            RefusedError: it never will.
        """
        headers = {"content-type": content_type, **self.headers}
        if self._gzip:
            body, size = _compressed(parts)
            headers["content-encoding"] = "gzip"
        else:
            body = b"".join(parts)
            size = len(body)
        answer = self.ask(self._connection, "POST", self.endpoint.target, headers, body)
        try:
            self.judge(answer)
        except RefusedError as refusal:
            if bear:
                self._bear_with(refusal)
            if refusal.status == _TOO_LARGE:
                self.max_body = min(self.max_body, max(size // 2, _SMALLEST_BODY))
            raise
        self._accept(answer, count)

    def _accept(self, answer: Answer, count: int) -> None:
        """OTLP/HTTP, "Partial Success": what was rejected must not be sent again."""
        self._server_errors = 0
        rejected, message = _partial_success(answer)
        if rejected := min(rejected, count):
            ledger.dropped("spans_rejected", rejected)
        if rejected or message:
            told = self.told(f"rejected {rejected} of {count} spans: {message}")
            ledger.failed("OTLP collector", StoreError(told))

    def _bear_with(self, refusal: RefusedError) -> None:
        """A collector that fails is asked again.

        Raises:
            NotNowError: it may do better next time.
        """
        if refusal.status >= 500 and self._server_errors < _MAX_SERVER_ERRORS:
            self._server_errors += 1  # for ever, a request that makes it fail would hold up all others
            raise NotNowError(str(refusal), refusal.status) from refusal
        self._server_errors = 0


def _partial_success(answer: Answer) -> tuple[int, str]:
    """``ExportTraceServiceResponse.partial_success``: how many spans were not taken, and why.

    A reason alone is a warning; what cannot be read is full success.
    """
    try:
        if "protobuf" in answer.content_type:
            partial = read_fields(answer.body).get(1, b"")
            fields = read_fields(partial) if isinstance(partial, bytes) else {}
            rejected = fields.get(1, 0)
            count = rejected if isinstance(rejected, int) and rejected < 1 << 63 else 0  # else it is negative
            return count, one_line(fields.get(2, b""))
        data = orjson.loads(answer.body) if answer.body else {}
        told = data.get("partialSuccess") or data.get("partial_success") or {}
        message = told.get("errorMessage") or told.get("error_message") or ""
        return max(int(told.get("rejectedSpans") or told.get("rejected_spans") or 0), 0), one_line(
            str(message)
        )
    except (ValueError, TypeError, AttributeError):
        return 0, ""


def _compressed(parts: Iterable[bytes]) -> tuple[bytes, int]:
    """The parts in gzip, and how long they were."""
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    compressed, size = [], 0
    for part in parts:
        compressed.append(compressor.compress(part))
        size += len(part)
    compressed.append(compressor.flush())
    return b"".join(compressed), size
