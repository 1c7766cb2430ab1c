"""The recorder: it starts traces, finishes them, and writes what is kept to the sink."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256

from .._capture import secrets
from .._capture.values import clean_text
from .._clock import wall_ns
from ..messages.prices import load_prices
from ..model import Source, Span, SpanType, TraceState
from ..model.record import encode
from ..process import ledger
from ..propagation import SpanContext
from ..settings import Settings
from ..sinks import BackgroundSink, FanOut, Sink
from .bridge import end_in_sessions, open_sessions, sync_sessions
from .live import LiveSpan, LiveTrace, TracedRequest
from .sampling import Sampler

__all__ = ["LiveSpan", "LiveTrace", "Recorder", "TracedRequest"]

_ERROR = TraceState.ERROR


class Recorder:
    """Starts and finishes traces.

    ``clock`` returns ns since the epoch. ``source`` may be replaced while requests run, and counts for traces
    that start later. ``records_all`` is true when the sampler keeps every trace, ``records_none`` when it
    keeps none.
    """

    def __init__(
        self, settings: Settings, source: Source, sink: Sink, *, clock: Callable[[], int] = wall_ns
    ) -> None:
        self.source = source
        self.sink = sink
        self.clock = clock
        self.experiment = settings.experiment
        self.max_spans = settings.max_spans_per_trace
        self.max_length = settings.max_metadata_length
        self.request_id_header = settings.request_id_header
        self.upstream: str = settings.upstream
        self.prices = load_prices(settings.prices)
        key = settings.user_hash_key
        self._user_key = key.get_secret_value().encode() if key else None
        self.sampler = Sampler(settings)
        secrets.configure(settings.redact)
        self.records_all = self.sampler.keeps_all
        self.records_none = self.sampler.keeps_none
        # Queues take records; any other sink gets the trace itself, in the request's own task.
        sinks = sink.sinks if isinstance(sink, FanOut) else (sink,)
        queues = tuple(queue for queue in sinks if isinstance(queue, BackgroundSink))
        self._queues = queues if len(queues) == len(sinks) else None

    @property
    def is_idle(self) -> bool:
        """Whether the sink writes nowhere."""
        return isinstance(self.sink, FanOut) and not self.sink.sinks

    def start(
        self, name: str, span_type: str = SpanType.UNKNOWN, caller: SpanContext | None = None
    ) -> LiveTrace:
        """Start a trace whose root span has this name; with ``caller``, join its trace and its decision."""
        return LiveTrace(self, name, span_type, caller)

    def follow(self, ended: LiveTrace, name: str, span_type: str, origin: Span) -> LiveTrace:
        """Start a trace for a span that begins after the trace of its context has ended.

        Otherwise a task that outlives its request, such as a worker, would add spans to the trace of that
        request as long as the process lives. ``origin`` is the span of the ended trace to link.
        """
        trace = self.start(clean_text(name), span_type)
        trace.follows = True
        trace.root.links.append(
            {"trace_id": ended.info.trace_id, "span_id": origin.span_id, "attributes": {}}
        )
        open_sessions(ended.bridges, trace, None)
        return trace

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
        if trace.over and late is None:
            return  # when the server stopped
        if (
            request is not None
            and error is None
            and not trace.is_read
            and self._finish_unread(trace, request)
        ):
            return
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
        if trace.sessions:
            # The root last: for other tracers its end is the end of the trace.
            end_in_sessions(
                trace, (*(span for span in trace.data.spans if span is not trace.root), trace.root)
            )
        for span in trace.data.spans:
            if span.end_time_ns is not None:  # an open span keeps its trace, and is written when it ends
                span.detach()  # type: ignore[attr-defined]

    def _finish_unread(self, trace: LiveTrace, request: TracedRequest) -> bool:
        """Write a request from its facts; ``False`` where that takes the trace itself."""
        try:
            outline = request.outline()
            if outline is None:
                return False
            route, ended_ns = outline
            is_kept = self.records_all or (not self.records_none and trace.is_wanted(route, ended_ns))
            if is_kept and self._queues is None:
                return False
            facts = request.facts(trace, route, ended_ns) if is_kept and self._queues else None
        except Exception:  # noqa: BLE001 - odd text in the scope, say: the trace is made, where it is cleaned
            return False
        trace.end_unread(ended_ns, is_kept, facts)
        if is_kept:
            ledger.recorded += 1
        if facts is not None:
            for queue in self._queues or ():
                queue.put_facts(facts, trace.source)
        return True

    def _complete(self, trace: LiveTrace, request: TracedRequest | None) -> None:
        if trace.sessions:
            sync_sessions(trace)
        if trace.is_kept:
            trace.complete_info()
            if request is not None:
                request.respond()
            self._write(trace)

    def _finish_late(self, trace: LiveTrace, span: LiveSpan) -> None:
        try:
            if span.recorded:
                if trace.is_kept:
                    self._write(trace, span)
                end_in_sessions(trace, (span,))
        finally:
            span.detach()

    def user(self, user_id: str) -> str:
        """Return a user id as it is recorded: with ``user_hash_key``, 32 hex of its HMAC-SHA256."""
        if self._user_key is None:
            return user_id
        return hmac.new(self._user_key, user_id.encode(), sha256).hexdigest()[:32]

    def _write(self, trace: LiveTrace, late: LiveSpan | None = None) -> None:
        ledger.recorded += 1
        try:
            if self._queues is None:
                self.sink.write((trace.copy(late),))
                return
            for queue in self._queues:
                # Other destinations may hold what JSON does not, such as a float that is no number.
                if queue.takes_records and trace.is_small:
                    queue.put_record(encode(trace.part(late)), is_error=trace.info.state is _ERROR)
                else:
                    queue.write((trace.copy(late),))
        except Exception as error:  # noqa: BLE001 - telemetry never hurts the host
            ledger.failed("sink", error)
            ledger.dropped("sink_failed")
