"""The OTLP/HTTP exporter: a sink that sends spans to a collector.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import SettingsError, StoreError, StoreUnavailableError
from ..model import Source, Span, Trace, TraceInfo
from . import facts
from .collector import MAX_BODY, Collector
from .encoding import Encoding
from .endpoint import Endpoint, checked_headers
from .environment import EncodingName, resource_variables
from .http import RETRYABLE, RefusedError
from .json_encoding import JsonEncoding
from .protobuf import ProtobufEncoding

if TYPE_CHECKING:
    from ssl import SSLContext

_MAX_DIVISIONS: Final = 64
_MAX_FAILURES: Final = 2
_MAX_RESOURCES: Final = 256
_LONGEST_CLOSE_S: Final = 0.2
_LOCAL: Final = facts.LOCAL_PARENT
_REMOTE: Final = facts.REMOTE_PARENT
_MLFLOW_HEADER: Final = "x-mlflow-experiment-id"
_ENCODINGS: Final[dict[str, type[JsonEncoding | ProtobufEncoding]]] = {
    "json": JsonEncoding,
    "protobuf": ProtobufEncoding,
}


# A span, its resource and itself encoded, and whether it may come again: in its trace, or in a fragment.
_Piece = tuple[Span, Any, Any, bool]


class Mark(weakref.ref[Span]):
    """That a span is done with, and why it was refused, if it was."""

    __slots__ = ("key", "refusal")

    key: int
    refusal: str | None


class Settled:
    """Spans that were acknowledged or refused.

    A span that ends after its trace was handed over comes in both, its trace and a fragment, as the same
    object; and a batch of which a part got through comes again whole. Both must not send a span twice. The
    marks are weak: a span that nobody can hand in any more takes no room. ``marks`` holds them by their
    ``id``.
    """

    def __init__(self) -> None:
        self.marks: dict[int, Mark] = {}

    def add(self, span: Span, refusal: str | None = None) -> None:
        """Remember that a span is done with; ``refusal`` says why it was not taken."""
        mark = Mark(span, self._forget)
        mark.key, mark.refusal = id(span), refusal
        self.marks[mark.key] = mark

    def _forget(self, mark: weakref.ref[Span]) -> None:
        self.marks.pop(mark.key, None)  # type: ignore[attr-defined]


class OTLPExporter:
    """Sends traces to an OTLP/HTTP collector such as OpenTelemetry's, Jaeger, Tempo or MLflow's server.

    ``endpoint`` is ``http(s)://[user:password@]host:port[/path]``; without a path it is ``/v1/traces``.
    ``encoding`` is ``"json"`` or ``"protobuf"``; a collector that answers 415 to JSON gets protobuf. Put it
    behind a ``BackgroundSink``, which keeps a batch while the collector is out of reach, asks to wait, or
    fails. Each span that has ended is sent until it is acknowledged, and then no more; those that are still
    open come later, in fragments of their traces.

    Raises:
        SettingsError: the endpoint, a header or the encoding cannot be used.
    """

    # What those for one kind of collector may change.
    _max_body = MAX_BODY
    _retryable = RETRYABLE
    _sent_once = True
    """Whether a live trace of one span, once acknowledged, is never handed in again."""

    def __init__(
        self,
        endpoint: str | Endpoint,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        encoding: EncodingName = "json",
        gzip: bool = True,
        ssl_context: SSLContext | None = None,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if encoding not in _ENCODINGS:
            raise SettingsError(f"encoding={encoding!r} cannot be used: it takes 'json' or 'protobuf'")
        given = checked_headers(headers or {})
        self._version = version("wherefrom")
        self._collector = Collector(
            Endpoint.parse(endpoint) if isinstance(endpoint, str) else endpoint,
            headers={"user-agent": f"wherefrom/{self._version} (OTLP exporter)", **given},
            timeout=timeout,
            gzip=gzip,
            max_body=self._max_body,
            ssl_context=ssl_context,
            environ=environ,
            clock=clock,
            retryable=self._retryable,
        )
        self._for_mlflow = _MLFLOW_HEADER in given
        self._configured = resource_variables(environ)
        self._closed = False
        self._lock = threading.Lock()
        self._settled = Settled()
        self._use(encoding)
        _living.add(self)

    def __repr__(self) -> str:
        return f"OTLPExporter({self._collector.endpoint.url!r}, encoding={self.encoding!r})"

    def _use(self, encoding: str) -> None:
        self.encoding = encoding
        self._encoding: Encoding[Any] = _ENCODINGS[encoding](self._version, for_mlflow=self._for_mlflow)
        self._resources: dict[tuple[str, str], Any] = {}

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._settled = Settled()
        self._collector.leave_to_parent()

    def write(self, traces: Sequence[Trace]) -> None:
        """Send the spans of ``traces`` that have ended and were not sent yet.

        Raises:
            StoreUnavailableError: the collector did not take all of them now; those that are ``left`` may
                be written later, or all: nothing is sent twice.
            StoreError: it refused some for good. Asked again trace by trace, as a ``BackgroundSink`` does,
                this raises for those alone, and nothing is sent twice.
        """
        with self._lock:
            sent: list[_Piece] = []
            self._divisions = _MAX_DIVISIONS
            self._refusal: str | None = None
            try:
                if pieces := self._encode(traces):
                    self._collector.check_pause()
                    self._send_all(pieces, sent, traces)
                if self._refusal is not None:
                    raise StoreError(self._refusal)
            except BaseException:
                for span, *_ in sent:
                    self._settled.add(span)
                raise
            finally:
                if self._closed:
                    self._collector.close()
            for span, _, _, returns in sent:
                if returns:
                    self._settled.add(span)

    def refusal_of(self, trace: Trace) -> str | None:
        """Why a span of a trace was refused for good, if one was."""
        marks = (self._settled.marks.get(id(span)) for span in trace.data.spans)
        return next((mark.refusal for mark in marks if mark is not None and mark.refusal), None)

    def close(self) -> None:
        """Hang up, or have a request that is under way do so at its end; a later ``write`` connects anew."""
        self._closed = True
        if self._lock.acquire(timeout=_LONGEST_CLOSE_S):
            try:
                self._collector.close()
            finally:
                self._lock.release()

    def _encode(self, traces: Sequence[Trace]) -> list[_Piece]:
        pieces: list[_Piece] = []
        seen: set[int] = set()
        encoding, marks = self._encoding, self._settled.marks
        source: Source | None = None
        experiment, resource = "", None
        for trace in traces:
            info, spans = trace.info, trace.data.spans
            if source is None or info.source is not source or info.experiment != experiment:
                source, experiment = facts.source_of(info), info.experiment
                resource = self._resource(source, experiment)
            live = type(trace) is not Trace
            returns = not (live and self._sent_once) or len(spans) > 1  # one span has no fragments
            root = trace.root if live else facts.root_of(trace)
            if marks or returns:
                spans = self._unsent(spans, seen)
            for span in spans:
                if (end := span.end_time_ns) is None:
                    continue
                try:
                    if span is root:
                        flags = _REMOTE if span.parent_id else _LOCAL
                        more = self._root_attributes(info, source, span)
                        encoded = encoding.span(span, end, flags, more)
                    else:
                        encoded = encoding.span(span, end, _LOCAL, [])
                    pieces.append((span, resource, encoded, returns))
                except Exception as error:  # noqa: BLE001 - one bad span must not cost the others
                    self._refuse(span, f"a span cannot be sent: {type(error).__name__}: {error}")
        return pieces

    def _unsent(self, spans: list[Span], seen: set[int]) -> list[Span]:
        """Those of ``spans`` that were neither settled before nor seen in this batch."""
        unsent = []
        for span in spans:
            key = id(span)
            if (mark := self._settled.marks.get(key)) is not None:
                self._refusal = mark.refusal or self._refusal
            elif span.end_time_ns is not None and key not in seen:
                seen.add(key)
                unsent.append(span)
        return unsent

    def _resource(self, source: Source, experiment: str) -> Any:
        key = (source.digest, experiment)
        resource = self._resources.get(key)
        if resource is None:
            attributes = self._resource_attributes(source, experiment)
            if len(self._resources) >= _MAX_RESOURCES:
                self._resources.clear()
            resource = self._resources[key] = self._encoding.resource(attributes)
        return resource

    def _resource_attributes(self, source: Source, experiment: str) -> dict[str, Any]:
        """What is told of the process that traces come from."""
        attributes = facts.resource_attributes(source, experiment, self._configured)
        return attributes | {"telemetry.sdk.version": self._version}

    def _root_attributes(self, info: TraceInfo, source: Source, root: Span) -> list[Any]:
        """What is told of a trace with its root span, encoded."""
        return self._encoding.trace_attributes(info, source.pairs, root.attributes)

    def _requests(self, pieces: list[_Piece]) -> Iterator[list[_Piece]]:
        """Pieces that go in one request, no longer than the collector has shown to take."""
        request: list[_Piece] = []
        size = 0
        for piece in pieces:
            length = len(piece[2])
            if request and size + length > self._collector.max_body:
                yield request
                request, size = [], 0
            request.append(piece)
            size += length
        if request:
            yield request

    def _send_all(self, pieces: list[_Piece], sent: list[_Piece], traces: Sequence[Trace]) -> None:
        """Send pieces in as many requests as it takes; one that is not taken holds up no other.

        Raises:
            StoreUnavailableError: some were not taken now; their traces are ``left``, if they are not all.
        """
        error: StoreUnavailableError | None = None
        failures, encoding = 0, self._encoding
        for request in self._requests(pieces):
            try:
                self._send(request, sent)
                failures = 0
            except StoreUnavailableError as failure:
                error, failures = failure, failures + 1
            if failures == _MAX_FAILURES or self._collector.asks_to_wait or self._encoding is not encoding:
                break
        if error is not None:
            undone = {id(span) for span, *_ in pieces} - {id(span) for span, *_ in sent}
            left = [
                trace
                for trace in traces
                if self.refusal_of(trace) or not undone.isdisjoint(map(id, trace.data.spans))
            ]
            error.left = left if len(left) < len(traces) else None
            raise error

    def _send(self, pieces: list[_Piece], sent: list[_Piece], *, bear: bool = True) -> None:
        """Send a request; one refused for what it holds is sent in halves, as long as that may help."""
        try:
            self._post(pieces, bear=bear)
        except RefusedError as refusal:
            if refusal.unsupported and self.encoding == "json":
                self._use("protobuf")
                raise StoreUnavailableError(f"{refusal}; it gets protobuf from now on") from None
            if refusal.divisible and len(pieces) > 1 and self._divisions > 0:
                self._divisions -= 1
                middle = len(pieces) // 2
                self._send(pieces[:middle], sent, bear=False)
                self._send(pieces[middle:], sent, bear=False)
            else:
                for span, *_ in pieces:
                    self._refuse(span, str(refusal))
        else:
            sent += pieces

    def _refuse(self, span: Span, message: str) -> None:
        self._settled.add(span, message)
        self._refusal = message

    def _post(self, pieces: list[_Piece], *, bear: bool) -> None:
        groups: dict[Any, list[Any]] = {}
        for _, resource, encoded, _ in pieces:
            groups.setdefault(resource, []).append(encoded)
        parts = self._encoding.request(groups.items())
        self._collector.send(parts, self._encoding.content_type, len(pieces), bear=bear)


_living: weakref.WeakSet[OTLPExporter] = weakref.WeakSet()


def _after_fork() -> None:
    for exporter in list(_living):
        exporter._start_afresh()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
