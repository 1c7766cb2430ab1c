"""The OTLP/HTTP exporter: a sink that sends spans to a collector.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from .. import keys
from .._clock import monotonic
from ..exceptions import SettingsError, StoreError, StoreUnavailableError
from ..model import Source, Span, Trace, TraceInfo
from ..model.parts import EXPERIMENT, services_of
from ..otel import otlp
from ..otel.otlp import LOCAL_PARENT, REMOTE_PARENT, SpanEncoder
from ..process import process
from .collector import MAX_BODY, Collector
from .endpoint import (
    DEFAULT_URL,
    Endpoint,
    check_protocol,
    checked_headers,
    configured_endpoint,
    read_pairs,
    resource_variables,
    tls_context,
    variable,
)
from .http import RETRYABLE, RefusedError

if TYPE_CHECKING:
    from ssl import SSLContext

_MAX_DIVISIONS: Final = 64  # finding a few culprits takes tens of requests, not thousands
_MAX_FAILURES: Final = 2  # the server is taken to be down, and the rest of a batch waits
_MAX_RESOURCES: Final = 256  # imported traces may each have a resource of their own
_LONGEST_CLOSE_S: Final = 0.2  # a request in progress must not delay the end of the process
_MLFLOW_HEADER: Final = "x-mlflow-experiment-id"
_TAKES: Final = "otlp:, otlp+http://host:4318 or otlp+https://host:4318"

# A span, its resource and itself encoded, and whether it may be written again, in its trace or a fragment.
_Piece = tuple[Span, bytes, bytes, bool]


class Mark(weakref.ref[Span]):
    """A span that was delivered or refused; ``refusal`` is the reason, ``None`` if it was delivered."""

    __slots__ = ("key", "refusal")

    key: int
    refusal: str | None


class Delivered:
    """Spans that were delivered or refused, and are not sent again.

    A batch that was delivered in part is written again as a whole, and a span may be in a trace and in a
    fragment of it. The marks are weak references by the ``id`` of the span: a span that nobody can write
    again takes no memory.
    """

    def __init__(self) -> None:
        self.marks: dict[int, Mark] = {}

    def add(self, span: Span, refusal: str | None = None) -> None:
        """Mark a span as delivered, or as refused with a reason."""
        mark = Mark(span, self._forget)
        mark.key, mark.refusal = id(span), refusal
        self.marks[mark.key] = mark

    def _forget(self, mark: weakref.ref[Span]) -> None:
        self.marks.pop(mark.key, None)  # type: ignore[attr-defined]


class OTLPExporter:
    """Sends traces to an OTLP/HTTP collector such as OpenTelemetry's, Jaeger, Tempo or MLflow's server.

    ``endpoint`` is ``http(s)://[user:password@]host:port[/path]``; the default path is ``/v1/traces``. The
    encoding is binary protobuf. Put it behind a ``BackgroundSink``, which keeps a batch while the collector
    is unavailable, asks to wait, or fails. Each span that has ended is sent until the collector acknowledges
    it; open spans follow later, in fragments of their traces.

    Raises:
        SettingsError: the endpoint or a header is invalid.
    """

    # A subclass for one kind of collector may change these.
    _max_body = MAX_BODY
    _retryable = RETRYABLE
    _sent_once = True
    """Whether a live trace of one span is never written again after it was acknowledged."""

    def __init__(
        self,
        endpoint: str | Endpoint,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        gzip: bool = True,
        ssl_context: SSLContext | None = None,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = monotonic,
    ) -> None:
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
        self._configured = resource_variables(environ)
        self._closed = False
        self._lock = threading.Lock()
        self._delivered = Delivered()
        self._encoder = SpanEncoder(self._version, for_mlflow=_MLFLOW_HEADER in given)
        self._resources: dict[tuple[str, str], bytes] = {}
        process.on_fork(in_child=self._start_afresh)

    def __repr__(self) -> str:
        return f"OTLPExporter({self._collector.endpoint.url!r})"

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._delivered = Delivered()
        self._collector.abandon_to_parent()

    def write(self, traces: Sequence[Trace]) -> None:
        """Send the spans of ``traces`` that have ended and were not sent yet.

        Nothing is sent twice, however often a trace is written.

        Raises:
            StoreUnavailableError: the collector does not accept all of them now; write those that are
                ``left`` later, or all.
            StoreError: it refused some for good. Written again one by one, as a ``BackgroundSink`` does, this
                is raised for those alone.
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
                    self._delivered.add(span)
                raise
            finally:
                if self._closed:
                    self._collector.close()
            for span, _, _, returns in sent:
                if returns:
                    self._delivered.add(span)

    def refusal_of(self, trace: Trace) -> str | None:
        """Return why a span of a trace was refused for good, ``None`` if none was."""
        marks = (self._delivered.marks.get(id(span)) for span in trace.data.spans)
        return next((mark.refusal for mark in marks if mark is not None and mark.refusal), None)

    def close(self) -> None:
        """Close the connection, at the end of a request in progress; a later ``write`` opens a new one."""
        self._closed = True
        if self._lock.acquire(timeout=_LONGEST_CLOSE_S):
            try:
                self._collector.close()
            finally:
                self._lock.release()

    def _encode(self, traces: Sequence[Trace]) -> list[_Piece]:
        pieces: list[_Piece] = []
        seen: set[int] = set()
        encoder, marks = self._encoder, self._delivered.marks
        source: Source | None = None
        experiment, resource = "", b""
        for trace in traces:
            info, spans = trace.info, trace.data.spans
            if source is None or info.source is not source or info.experiment != experiment:
                source, experiment = otlp.source_of(info), info.experiment
                resource = self._resource(source, experiment)
            live = type(trace) is not Trace
            returns = not (live and self._sent_once) or len(spans) > 1  # one span has no fragments
            root = trace.root if live else otlp.root_of(trace)
            resources = {} if live else self._resources_of_parts(trace, root)
            if marks or returns:
                spans = self._unsent(spans, seen)
            for span in spans:
                if (end := span.end_time_ns) is None:
                    continue
                try:
                    if span is root:
                        flags = REMOTE_PARENT if span.parent_id else LOCAL_PARENT
                        more = self._root_attributes(info, source, span)
                        encoded = encoder.span(span, end, flags, more)
                    else:
                        flags = REMOTE_PARENT if keys.PART_SOURCE in span.attributes else LOCAL_PARENT
                        encoded = encoder.span(span, end, flags, [])
                    pieces.append((span, resources.get(span.span_id, resource), encoded, returns))
                except Exception as error:  # noqa: BLE001 - one bad span must not cost the others
                    self._refuse(span, f"a span cannot be sent: {type(error).__name__}: {error}")
        return pieces

    def _resources_of_parts(self, trace: Trace, root: Span | None) -> dict[str, bytes]:
        """The resource of each span, by its id, of a trace that several services recorded."""
        if not any(span is not root and keys.PART_SOURCE in span.attributes for span in trace.data.spans):
            return {}
        resources: dict[str, bytes] = {}
        for span_id, pairs in services_of(trace).items():
            own = {key: value for key, value in pairs.items() if key not in {EXPERIMENT, keys.INSTANCE_ID}}
            resources[span_id] = self._resource(Source(own), pairs.get(EXPERIMENT, trace.info.experiment))
        return resources

    def _unsent(self, spans: list[Span], seen: set[int]) -> list[Span]:
        """Those of ``spans`` that have ended and were neither delivered, refused nor seen in this batch."""
        unsent = []
        for span in spans:
            key = id(span)
            if (mark := self._delivered.marks.get(key)) is not None:
                self._refusal = mark.refusal or self._refusal
            elif span.end_time_ns is not None and key not in seen:
                seen.add(key)
                unsent.append(span)
        return unsent

    def _resource(self, source: Source, experiment: str) -> bytes:
        key = (source.digest, experiment)
        resource = self._resources.get(key)
        if resource is None:
            attributes = self._resource_attributes(source, experiment)
            if len(self._resources) >= _MAX_RESOURCES:
                self._resources.clear()
            resource = self._resources[key] = self._encoder.resource(attributes)
        return resource

    def _resource_attributes(self, source: Source, experiment: str) -> dict[str, Any]:
        attributes = otlp.resource_attributes(source, experiment, self._configured)
        return attributes | {"telemetry.sdk.version": self._version}

    def _root_attributes(self, info: TraceInfo, source: Source, root: Span) -> list[bytes]:
        return self._encoder.trace_attributes(info, source.pairs, root.attributes)

    def _requests(self, pieces: list[_Piece]) -> Iterator[list[_Piece]]:
        """Group pieces into requests that are no larger than the collector accepts."""
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
        """Send pieces in one or more requests; one that is not accepted does not stop the others.

        Raises:
            StoreUnavailableError: some were not accepted now; their traces are ``left``, unless all are.
        """
        error: StoreUnavailableError | None = None
        failures = 0
        for request in self._requests(pieces):
            try:
                self._send(request, sent)
                failures = 0
            except StoreUnavailableError as failure:
                error, failures = failure, failures + 1
            if failures == _MAX_FAILURES or self._collector.is_paused:
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

    def _send(self, pieces: list[_Piece], sent: list[_Piece], *, retry_failures: bool = True) -> None:
        """Send a request; one that is refused for its content is sent in halves, to find the culprit."""
        groups: dict[bytes, list[bytes]] = {}
        for _, resource, encoded, _ in pieces:
            groups.setdefault(resource, []).append(encoded)
        try:
            parts = self._encoder.request(groups.items())
            self._collector.send(parts, len(pieces), retry_failures=retry_failures)
        except RefusedError as refusal:
            if refusal.divisible and len(pieces) > 1 and self._divisions > 0:
                self._divisions -= 1
                middle = len(pieces) // 2
                self._send(pieces[:middle], sent, retry_failures=False)
                self._send(pieces[middle:], sent, retry_failures=False)
            else:
                for span, *_ in pieces:
                    self._refuse(span, str(refusal))
        else:
            sent += pieces

    def _refuse(self, span: Span, message: str) -> None:
        self._delivered.add(span, message)
        self._refusal = message


def open_otlp(target: str, environ: Mapping[str, str] = os.environ) -> OTLPExporter:
    """Open the exporter of ``otlp:`` (configured by the environment) or of ``otlp+http(s)://…``.

    The headers in the environment are also sent to a URL in ``target``, unless the environment names another
    host for them: an API key must not reach another server.

    Raises:
        SettingsError: ``target`` or a variable is invalid.
    """
    scheme, _, url = target.partition("+")
    check_protocol(environ, strict=target == "otlp:")
    if target == "otlp:":
        endpoint, sends_headers = configured_endpoint(environ) or Endpoint.parse(DEFAULT_URL), True
    elif scheme == "otlp" and url.startswith(("http://", "https://")):
        endpoint = Endpoint.parse(url)
        try:
            configured = configured_endpoint(environ)
            sends_headers = configured is None or configured.origin == endpoint.origin
        except SettingsError:  # such as gRPC's localhost:4317: another server
            sends_headers = False
    else:
        shown = target.partition(":")[0]  # the rest may contain a password
        raise SettingsError(f"WHEREFROM_EXPORT='{shown}:…' cannot be used: it takes {_TAKES}")
    return OTLPExporter(
        endpoint,
        headers=read_pairs(variable("HEADERS", environ)) if sends_headers else {},
        gzip=variable("COMPRESSION", environ) != "none",
        ssl_context=tls_context(
            "OTEL_EXPORTER_OTLP",
            trusted=variable("CERTIFICATE", environ),
            certificate=variable("CLIENT_CERTIFICATE", environ),
            key=variable("CLIENT_KEY", environ),
        ),
        environ=environ,
    )
