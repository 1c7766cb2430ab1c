"""The recorder: it starts traces, finishes them, and writes what is kept to the sink."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from hashlib import sha256

from ..model import Source, SpanType, Trace
from ..process import ledger
from ..propagation import SpanContext
from ..settings import Settings
from ..sinks import FanOut, Sink
from .bridge import end_in_sessions, sync_sessions
from .live import LiveSpan, LiveTrace, TracedRequest
from .sampling import Sampler

__all__ = ["LiveSpan", "LiveTrace", "Recorder", "TracedRequest"]


class Recorder:
    """Starts and finishes traces.

    ``clock`` returns ns since the epoch. ``source`` may be replaced while requests run, and counts for traces
    that start later. ``records_all`` is true when the sampler keeps every trace.
    """

    def __init__(
        self, settings: Settings, source: Source, sink: Sink, *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.source = source
        self.sink = sink
        self.clock = clock
        self.experiment = settings.experiment
        self.max_spans = settings.max_spans_per_trace
        self.max_length = settings.max_metadata_length
        self.request_id_header = settings.request_id_header
        key = settings.user_hash_key
        self._user_key = key.get_secret_value().encode() if key else None
        self.sampler = Sampler(settings)
        self.records_all = self.sampler.keeps_all

    @property
    def is_idle(self) -> bool:
        """Whether the sink writes nowhere."""
        return isinstance(self.sink, FanOut) and not self.sink.sinks

    def start(
        self, name: str, span_type: str = SpanType.UNKNOWN, caller: SpanContext | None = None
    ) -> LiveTrace:
        """Start a trace whose root span has this name; with ``caller``, join its trace and its decision."""
        return LiveTrace(self, name, span_type, caller)

    def finish(
        self,
        trace: LiveTrace,
        request: TracedRequest | None = None,
        error: BaseException | None = None,
        *,
        late: LiveSpan | None = None,
    ) -> None:
        """End a trace and write it to the sink, unless it is sampled out.

        ``request`` is the request that it records, and ``error`` what the app raised there. With ``late``, a
        span that ended after its trace is written by itself, under the same trace id. A failure is counted,
        and never raised into the app.
        """
        try:
            if late is not None:
                self._finish_late(trace, late)
                return
            if request is None:
                trace.root.end()
                trace.settle(None)
            else:
                route = request.end(error)
                if trace.settle(route) or trace.sessions:
                    request.describe(route)
            self._complete(trace, request)
        except Exception as failure:  # noqa: BLE001 - the app's response stands, whatever fails here
            ledger.failed("recording", failure)
            ledger.dropped("recording_failed")
        trace.over = True
        if trace.is_handed_over:
            return
        if trace.sessions:
            # The root last: for other tracers its end is the end of the trace.
            end_in_sessions(
                trace, (*(span for span in trace.data.spans if span is not trace.root), trace.root)
            )
        for span in trace.data.spans:
            if span.end_time_ns is not None:  # an open span keeps its trace, and is written when it ends
                span.trace = None  # type: ignore[attr-defined]

    def _complete(self, trace: LiveTrace, request: TracedRequest | None) -> None:
        if trace.sessions:
            sync_sessions(trace)
        if trace.is_kept:
            trace.complete_info()
            if request is not None:
                request.respond()
            self._write(trace.record())

    def _finish_late(self, trace: LiveTrace, span: LiveSpan) -> None:
        try:
            if span.recorded:
                if trace.is_kept:
                    self._write(trace.record_late(span))
                end_in_sessions(trace, (span,))
        finally:
            span.trace = None

    def user(self, user_id: str) -> str:
        """Return a user id as it is recorded: with ``user_hash_key``, 32 hex of its HMAC-SHA256."""
        if self._user_key is None:
            return user_id
        return hmac.new(self._user_key, user_id.encode(), sha256).hexdigest()[:32]

    def _write(self, trace: Trace) -> None:
        ledger.recorded += 1
        try:
            self.sink.write((trace,))
        except Exception as error:  # noqa: BLE001 - telemetry never hurts the host
            ledger.failed("sink", error)
            ledger.dropped("sink_failed")
