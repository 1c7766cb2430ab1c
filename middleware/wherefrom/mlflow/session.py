"""MLflow's side of one of our traces: spans are copied both ways, and values set on either side."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from typing import Any, Final
from weakref import ReferenceType, ref

import mlflow
from mlflow.entities import LiveSpan as MLflowSpan
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import Span as SDKSpan
from opentelemetry.trace import SpanKind

from .. import keys
from .._capture.values import clean_text
from ..context import trace_var
from ..model import Span, SpanType
from ..process import ledger, process
from ..tracing.api import current_trace
from ..tracing.bridge import BridgeSession
from ..tracing.exceptions import describe
from ..tracing.live import LiveSpan, LiveTrace
from . import convert, private
from .private import ids


class OpenSpans:
    """MLflow's open spans of one request by id, each with the task that started it."""

    def __init__(self) -> None:
        self._begun_in: dict[str, ReferenceType[asyncio.Task[Any]] | None] = {}

    def begin(self, span_id: str) -> None:
        """Add a span that the current task has started."""
        self._begun_in[span_id] = _current_task()

    def end(self, span_id: str) -> None:
        """Remove a span that has ended."""
        self._begun_in.pop(span_id, None)

    def abandoned(self) -> list[str]:
        """Return the spans that no code will end: their task is done, or is the current one.

        A task that still runs ends its own spans.
        """
        return [span_id for span_id, begun_in in self._begun_in.items() if not _goes_on(begun_in)]


def _goes_on(begun_in: ReferenceType[asyncio.Task[Any]] | None) -> bool:
    task = None if begun_in is None else begun_in()
    return task is not None and not task.done() and begun_in != _current_task()


def _current_task() -> ReferenceType[asyncio.Task[Any]] | None:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread, or trio: asyncio knows no current task
        return None
    return None if task is None else ref(task)


OTHER_ID: Final = "wherefrom.trace_id"
"""Metadata of the MLflow trace when it could not have the id of ours."""

_PREVIEWS: Final = {("request_preview", None), ("response_preview", None)}


class BroughtSpan(LiveSpan):
    """A span of MLflow in one of our traces."""


class MLflowSession(BridgeSession):
    """MLflow's side of one of our traces.

    ``root`` is MLflow's root span, or ``None`` if MLflow does not record this trace. If the bridge started it
    (``owned``), it ends with our trace. Otherwise another instrumentation started it and ends it: where
    MLflow shares OpenTelemetry's provider (``MLFLOW_USE_DEFAULT_TRACER_PROVIDER=false``, here ``is_shared``),
    it is the server span. ``path`` is that of the request.
    """

    def __init__(self, path: str, *, is_shared: bool) -> None:
        self.root: MLflowSpan | None = None
        self.owned = False
        self.path = path
        self.trace_id = ""
        self._known: dict[str, LiveSpan] = {}
        self._open = OpenSpans()
        self._ended = False
        self._is_shared = is_shared
        self._restore = ExitStack()

    def pause(self) -> None:
        """Disable MLflow's tracing until the app has returned."""
        self._restore.enter_context(mlflow.tracing.context(enabled=False))

    def make_current(self, span: Any) -> None:
        """Make a span MLflow's current span until the app has returned."""
        self._restore.callback(private.deactivate, private.activate(span))

    def restore(self) -> None:
        """Restore the span that was current before the request."""
        self._restore.close()

    def take_root(self, trace: LiveTrace, root: MLflowSpan, *, owned: bool) -> None:
        """Record this trace from now on as the MLflow trace that ``root`` started."""
        self.owned = owned
        self.root = root
        self.trace_id = root.trace_id
        self._known[root.span_id] = trace.root
        private.mark(root, trace.root)
        process.bridged_traces[_otel_id(root.trace_id)] = self
        with private.info_of(self.trace_id) as info:
            found = {} if info is None else convert.of_mlflow(info)
        # Values that MLflow detects in the process do not count as set by the app: ours are better.
        # The model does, unless the app has set ours: MLflow's active model precedes the environment's.
        model = trace.info.trace_metadata.get(keys.MODEL_ID)
        is_set = model is not None and model != os.environ.get("MLFLOW_ACTIVE_MODEL_ID")
        known = _OF_PROCESS if is_set else _OF_PROCESS - {keys.MODEL_ID}
        self._agreed = {term: value for term, value in found.items() if term[1] in known}
        self._agree(trace)

    def on_span_start(self, span: LiveSpan) -> None:
        """Start MLflow's span for one of ours."""
        if self.root is not None:
            self.theirs(span)

    def on_span_end(self, span: Span) -> None:
        """End MLflow's span for one of ours; with our root, MLflow's trace is complete."""
        trace = span.trace if isinstance(span, LiveSpan) else None
        if self.root is None or trace is None:
            return
        try:
            if span is not trace.root:
                self._complete(span)
            elif not self._ended:
                self._ended = True
                self._end(trace)
        except Exception as error:  # noqa: BLE001 - another tracer's failure
            ledger.failed("mlflow", error)

    def sync(self, trace: LiveTrace) -> None:
        """Copy the values that the app has set on either side of the trace to the other."""
        if self.root is None:
            return
        self._agree(trace)
        if not self.owned and not trace.over:
            # MLflow's root may end now, and MLflow does not export a trace with open spans.
            for span in trace.data.spans:
                if span.end_time_ns is not None and span is not trace.root:
                    self._complete(span)

    def close(self, trace: LiveTrace, error: BaseException | None) -> None:
        """The app has returned: end the spans that it left open, and restore the current span."""
        try:
            if self.root is not None:
                self._close_abandoned(error)
                self._agree(trace)
        finally:
            # In another context, as when the event loop closes, nothing was made current.
            if trace_var.get() is trace:
                self.restore()

    def activate(self, span: Span | None, held: object) -> object:
        """Make MLflow's span for one of ours current, or no span if a server left another request's."""
        try:
            if held is not None:
                return private.activate(held)  # type: ignore[arg-type]
            if not isinstance(span, LiveSpan):
                return private.activate(private.nothing()) if _is_of_request(private.current()) else None
            theirs = None if self.root is None else self.theirs(span)
            return None if theirs is None else private.activate(theirs)
        except Exception as error:  # noqa: BLE001 - another tracer's failure
            ledger.failed("mlflow", error)
            return None

    def deactivate(self, token: object) -> None:
        """Restore the span that was current before ``activate``."""
        private.deactivate(token)

    def held(self) -> object:
        """Return the current span, if it belongs to a request."""
        current = private.current()
        return private.holding(current) if current is not None and _is_of_request(current) else None

    def innermost(self, span: Span | None) -> Span | None:
        """Return our span for MLflow's current one if that is below ``span``, otherwise ``span``."""
        ours = getattr(private.current(), private.OUR_SPAN, None)
        if self.root is None or span is None or ours is None or ours.trace_id != span.trace_id:
            return span
        inner: Span | None = span
        while inner is not None and inner is not ours:
            inner = self._known.get(inner.parent_id or "")
        return ours if inner is None else span

    def _agree(self, trace: LiveTrace) -> None:
        """Copy values that the app has set on one side to the other; the last write wins."""
        try:
            if trace.over:
                self._speak_for_handler(trace.root)
                if self.trace_id != trace.info.trace_id:
                    trace.root.attributes["mlflow.trace_id"] = self.trace_id
            with private.info_of(self.trace_id) as info:
                if info is not None:  # MLflow keeps at most 1,000 live traces, each for an hour
                    current = convert.of_mlflow(info)
                    news = {term: value for term, value in current.items() if self._agreed.get(term) != value}
                    convert.to_ours(trace, news)
                    ours = convert.of_ours(trace)
                    if self._ended:
                        ours = {term: value for term, value in ours.items() if term not in _PREVIEWS}
                    convert.to_mlflow(info, ours)
                    self._agreed = convert.of_mlflow(info)
        except Exception as error:  # noqa: BLE001 - another tracer's trouble
            ledger.failed("mlflow", error)

    def _speak_for_handler(self, root: LiveSpan) -> None:
        """Copy inputs and outputs of the outermost spans in MLflow to a root without any."""
        if root.inputs is not None and root.outputs is not None:
            return
        outermost = [span for span in self._known.values() if self._is_outermost(span, root)]
        if outermost:
            root.inputs = outermost[0].inputs if root.inputs is None else root.inputs
            root.outputs = outermost[-1].outputs if root.outputs is None else root.outputs

    def _is_outermost(self, span: LiveSpan, root: LiveSpan) -> bool:
        """Whether a span in MLflow has inputs and none of its ancestors has."""
        if span.inputs is None or not isinstance(span, BroughtSpan):
            return False
        outer = self._known.get(span.parent_id or "")
        while outer is not None and outer is not root and outer.inputs is None:
            outer = self._known.get(outer.parent_id or "")
        return outer is None or outer is root

    def adopt(self, trace: LiveTrace, span: SDKSpan) -> None:
        """Make a server span that another instrumentation started inside of ours MLflow's root.

        MLflow drops our root before it has exported any of it.
        """
        context = span.get_span_context()
        trace_id, span_id = f"tr-{context.trace_id:032x}", f"{context.span_id:016x}"
        theirs = private.find(trace_id, span_id)
        if theirs is not None:
            private.forget(_otel_id(self.trace_id))
            trace.take_identity(trace_id, span_id, None)
            self.take_root(trace, theirs, owned=False)

    def bring(self, theirs: SDKSpan) -> None:
        """Add a span of MLflow that has started to our trace."""
        span_id = f"{theirs.get_span_context().span_id:016x}"
        self._open.begin(span_id)
        known = getattr(theirs, private.OUR_SPAN, None)
        if (
            known is not None
        ):  # where MLflow shares OpenTelemetry's provider, OpenTelemetry's bridge has added the span
            self._known[span_id] = known
            return
        trace = self._trace()
        if trace is None or not trace.recording:
            return
        parent = (theirs.parent and self._known.get(f"{theirs.parent.span_id:016x}")) or trace.root
        ours = BroughtSpan(
            trace,
            (span_id, parent.span_id),
            clean_text(theirs.name),
            SpanType.UNKNOWN.value,
            (theirs.start_time or 0) - trace.skew(),
        )
        trace.add(ours)
        ours.exported = self._is_shared
        self._known[span_id] = ours
        setattr(theirs, private.OUR_SPAN, ours)  # a reference that keeps our span alive as long as MLflow's

    def _trace(self) -> LiveTrace | None:
        """Return our trace: from its root, or from the context if the root has released it."""
        trace = self._root_span().trace or current_trace()
        return trace if trace is not None and self in trace.sessions else None

    def _root_span(self) -> LiveSpan:
        """Return our root, which belongs to the trace while it is live."""
        return self._known[self._their_root().span_id]

    def _their_root(self) -> MLflowSpan:
        if self.root is None:
            raise LookupError("MLflow has no span of this trace")
        return self.root

    def ended(self, theirs: ReadableSpan) -> None:
        """Record a span of MLflow that has ended."""
        context = theirs.get_span_context()
        span_id = "" if context is None else f"{context.span_id:016x}"
        ours = self._known.get(span_id)
        self._open.end(span_id)
        if isinstance(ours, BroughtSpan) and ours.end_time_ns is None:
            skew = 0 if ours.trace is None else ours.trace.skew()
            if ours.recorded:
                convert.read_mlflow_span(ours, theirs)
                ours.set_back(skew)
            ours.end(None if theirs.end_time is None else theirs.end_time - skew)

    def _close_abandoned(self, error: BaseException | None) -> None:
        """End abandoned spans, such as those of generators that were not exhausted.

        MLflow would not export the trace while they are open.
        """
        for span_id in self._open.abandoned():
            theirs = private.find(self.trace_id, span_id)
            if theirs is not None:
                theirs.set_attribute("wherefrom.generator.closed_early", value=True)
                if error is not None:
                    convert.fail(theirs, describe(error))
                theirs.end()

    def theirs(self, span: LiveSpan) -> MLflowSpan | None:
        """MLflow's span for one of ours, which is started if it does not exist; ``None`` if that fails."""
        if span is self._root_span():
            return self.root
        if span.span_id in self._known:
            return private.find(self.trace_id, span.span_id)
        trace = span.trace
        parent = None if trace is None else self._theirs_of_parent(trace, span)
        if (
            parent is None or not span.recorded
        ):  # a span over the limit is on neither side: its children get its parent
            return parent
        with ids(None, span.span_id):
            begun = mlflow.start_span_no_context(
                span.name,
                span_type=str(span.span_type),
                parent_span=parent,
                start_time_ns=span.start_time_ns,
            )
        if not private.is_recorded(begun):
            return None
        self._known[span.span_id] = span
        span.exported = span.exported or self._is_shared
        private.mark(begun, span)
        return begun

    def _theirs_of_parent(self, trace: LiveTrace, span: LiveSpan) -> MLflowSpan | None:
        parent = self._known.get(span.parent_id or "")
        if parent is None:
            spans = (other for other in trace.data.spans if other.span_id == span.parent_id)
            parent = next((other for other in spans if isinstance(other, LiveSpan)), trace.root)
        return self.theirs(parent)

    def _complete(self, span: Span) -> None:
        if not isinstance(span, LiveSpan) or isinstance(span, BroughtSpan):
            return
        theirs = self.theirs(span)
        if theirs is not None and theirs.end_time_ns is None and span.end_time_ns is not None:
            convert.write_mlflow_span(theirs, span)
            theirs.end(end_time_ns=span.end_time_ns)

    def _end(self, trace: LiveTrace) -> None:
        root, theirs = trace.root, self._their_root()
        try:
            self._agree(trace)
            if self.owned:
                private.rename(theirs, root.name)
                convert.write_mlflow_span(theirs, root)
            else:
                convert.fill_values(theirs, root)
            final = {
                ("state", None): trace.info.state.value,
                ("tags", keys.TRACE_NAME_TAG): trace.info.tags.get(keys.TRACE_NAME_TAG) or root.name,
            }
            if self.trace_id != trace.info.trace_id:
                final["trace_metadata", OTHER_ID] = trace.info.trace_id
            with private.info_of(self.trace_id) as info:
                if info is not None:
                    convert.to_mlflow(info, final)
        finally:
            if self.owned:
                theirs.end(end_time_ns=root.end_time_ns)


_OF_PROCESS: Final = keys.SOURCE_KEYS | {keys.TRACE_NAME_TAG}


def session_of(trace: LiveTrace) -> MLflowSession | None:
    """Return MLflow's side of a trace, or ``None`` if MLflow does not record it."""
    found = (other for other in trace.sessions if isinstance(other, MLflowSession))
    return next((session for session in found if session.root is not None), None)


def session_of_number(trace_number: int) -> MLflowSession | None:
    """Return the session of an MLflow trace by its OpenTelemetry trace id."""
    return process.bridged_traces.get(trace_number)


def _is_of_request(span: object) -> bool:
    return hasattr(span, private.OUR_SPAN)


def _otel_id(trace_id: str) -> int:
    return int(trace_id[-32:], 16)  # the id may have the form trace:/<location>/<id>


def server_span(trace: LiveTrace) -> MLflowSpan | None:
    """Return the server span that another instrumentation opened for our request, if MLflow records it.

    A span that another request of ours has taken, or that has ended, was leaked by the server.
    """
    current = private.current()
    if current is None or not current.is_recording() or getattr(current, "kind", None) is not SpanKind.SERVER:
        return None
    if getattr(current, private.OUR_SPAN, trace.root) is not trace.root or getattr(current, "parent", None):
        return None
    context = current.get_span_context()
    theirs = private.find(f"tr-{context.trace_id:032x}", f"{context.span_id:016x}")
    if theirs is not None:
        trace.take_identity(theirs.trace_id, theirs.span_id, None)
    return theirs
