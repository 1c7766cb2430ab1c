"""Ids: MLflow's spans get those of ours, so that a trace has one id wherever it is looked for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final
from weakref import ReferenceType, WeakValueDictionary, ref

import mlflow
from mlflow.entities import LiveSpan as MLflowSpan
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace import Span as SDKSpan
from opentelemetry.sdk.trace.id_generator import IdGenerator

from .. import keys
from .._capture.values import clean_text
from ..model import Span, SpanType
from ..process import ledger
from ..tracing.api import current_trace
from ..tracing.recorder import LiveSpan, LiveTrace
from . import convert, private

_given: ContextVar[tuple[int | None, int] | None] = ContextVar("wherefrom_mlflow_ids", default=None)


@contextmanager
def ids(trace_id: str | None, span_id: str) -> Iterator[None]:
    """A block in which the next span gets this id, and a new trace that one (``tr-`` + 32 hex)."""
    token = _given.set((None if trace_id is None else int(trace_id[3:], 16), int(span_id, 16)))
    try:
        yield
    finally:
        _given.reset(token)


def are_given() -> bool:
    """Whether the span that starts is one of ours."""
    return _given.get() is not None


class GivenIds(IdGenerator):
    """The ids of the block around, and elsewhere those of the generator that was there before."""

    def __init__(self, inner: IdGenerator) -> None:
        self._inner = inner

    def generate_span_id(self) -> int:
        """A span id."""
        given = _given.get()
        return self._inner.generate_span_id() if given is None else given[1]

    def generate_trace_id(self) -> int:
        """A trace id."""
        given = _given.get()
        trace_id = None if given is None else given[0]
        return self._inner.generate_trace_id() if trace_id is None else trace_id

    def is_trace_id_random(self) -> bool:
        """Ours hold the 56 random bits that are asked for."""
        return self._inner.is_trace_id_random()


def install(provider: TracerProvider, tracer: str) -> None:
    """Have the ids of a provider come from here, and of the named tracer, which may be there already."""
    if not isinstance(provider.id_generator, GivenIds):
        provider.id_generator = GivenIds(provider.id_generator)  # type: ignore[assignment] # it takes any
    provider.get_tracer(tracer).id_generator = provider.id_generator  # type: ignore[attr-defined] # the SDK's


class OpenSpans:
    """MLflow's open spans of one request, by id, each with the task that it was begun in."""

    def __init__(self) -> None:
        self._begun_in: dict[str, ReferenceType[asyncio.Task[Any]] | None] = {}

    def begin(self, span_id: str) -> None:
        """A span has been begun here."""
        self._begun_in[span_id] = _current_task()

    def end(self, span_id: str) -> None:
        """It has ended."""
        self._begun_in.pop(span_id, None)

    def abandoned(self) -> list[str]:
        """Those whose task is over, or the one that asks: at the end of a request, what it has left open.

        A span of a task that still runs is that task's own to end.
        """
        return [span_id for span_id, begun_in in self._begun_in.items() if not _goes_on(begun_in)]


def _goes_on(begun_in: ReferenceType[asyncio.Task[Any]] | None) -> bool:
    task = None if begun_in is None else begun_in()
    return task is not None and not task.done() and begun_in != _current_task()


def _current_task() -> ReferenceType[asyncio.Task[Any]] | None:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread, or trio
        return None
    return None if task is None else ref(task)


OTHER_ID: Final = "wherefrom.trace_id"
"""Metadata of the MLflow trace when it could not have the id of ours."""

_PREVIEWS: Final = {("request_preview", None), ("response_preview", None)}


class BroughtSpan(LiveSpan):
    """A span of MLflow's in our trace."""


class Counterpart:
    """One of our traces as MLflow knows it. It is one of the trace's ``followers``.

    ``root`` is MLflow's root span. Where the bridge has begun it (``owned``), it ends when our trace is over,
    with our end. Else another instrumentation has, and ends it: where MLflow shares OpenTelemetry's provider
    (``MLFLOW_USE_DEFAULT_TRACER_PROVIDER=false``, here ``is_shared``), that is the server span. ``path`` is
    the request's.
    """

    def __init__(
        self, trace: LiveTrace, root: MLflowSpan, *, owned: bool, path: str, is_shared: bool
    ) -> None:
        self.owned = owned
        self.path = path
        self._known: dict[str, LiveSpan] = {}
        self._open = OpenSpans()
        self._ended = False
        self._is_shared = is_shared
        self._take_root(trace, root)

    def _take_root(self, trace: LiveTrace, root: MLflowSpan) -> None:
        self.root = root
        self.trace_id = root.trace_id
        self._known[root.span_id] = trace.root
        private.mark(root, trace.root)
        counterparts[_otel_id(root.trace_id)] = self
        with private.info_of(self.trace_id) as info:
            found = {} if info is None else convert.of_mlflow(info)
        # What MLflow has found out about the process we know better; the rest is the app's own word, and so
        # is the model, unless we were told of another: MLflow's active one goes before the environment's.
        model = trace.info.trace_metadata.get(keys.MODEL_ID)
        is_told = model is not None and model != os.environ.get("MLFLOW_ACTIVE_MODEL_ID")
        known = _OF_PROCESS if is_told else _OF_PROCESS - {keys.MODEL_ID}
        self._agreed = {term: value for term, value in found.items() if term[1] in known}
        self.agree(trace)

    def agree(self, trace: LiveTrace) -> None:
        """Tell each side what the app has said of the trace to the other; of two answers the later counts."""
        try:
            if trace.over:
                self._speak_for_handler(trace.root)
                if self.trace_id != trace.info.trace_id:
                    trace.root.attributes["mlflow.trace_id"] = self.trace_id
            with private.info_of(self.trace_id) as info:
                if info is not None:  # MLflow keeps 1,000 traces that go on, and each for an hour
                    said = convert.of_mlflow(info)
                    news = {term: value for term, value in said.items() if self._agreed.get(term) != value}
                    convert.to_ours(trace, news)
                    ours = convert.of_ours(trace)
                    if self._ended:
                        ours = {term: value for term, value in ours.items() if term not in _PREVIEWS}
                    convert.to_mlflow(info, ours)
                    self._agreed = convert.of_mlflow(info)
        except Exception as error:  # noqa: BLE001 - another tracer's trouble
            ledger.failed("mlflow", error)

    def _speak_for_handler(self, root: LiveSpan) -> None:
        """A request that was given no inputs and outputs has those of what MLflow's user has traced in it."""
        if root.inputs is not None and root.outputs is not None:
            return
        outermost = [span for span in self._known.values() if self._is_outermost(span, root)]
        if outermost:
            root.inputs = outermost[0].inputs if root.inputs is None else root.inputs
            root.outputs = outermost[-1].outputs if root.outputs is None else root.outputs

    def _is_outermost(self, span: LiveSpan, root: LiveSpan) -> bool:
        """Whether a span of MLflow's has inputs, and none around it has."""
        if span.inputs is None or not isinstance(span, BroughtSpan):
            return False
        outer = self._known.get(span.parent_id or "")
        while outer is not None and outer is not root and outer.inputs is None:
            outer = self._known.get(outer.parent_id or "")
        return outer is None or outer is root

    def adopt(self, trace: LiveTrace, span: SDKSpan) -> None:
        """Another instrumentation has begun the server span, inside of ours: that is MLflow's root, not ours.

        Ours is forgotten there before anything of it has been sent.
        """
        context = span.get_span_context()
        trace_id, span_id = f"tr-{context.trace_id:032x}", f"{context.span_id:016x}"
        theirs = private.find(trace_id, span_id)
        if theirs is not None:
            private.forget(_otel_id(self.trace_id))
            self.owned = False
            trace.take_identity(trace_id, span_id, None)
            self._take_root(trace, theirs)

    # Spans of MLflow's, on their way into ours.

    def bring(self, theirs: SDKSpan) -> None:
        """A span of MLflow's has started: give it a place in our trace."""
        span_id = f"{theirs.get_span_context().span_id:016x}"
        self._open.begin(span_id)
        known = getattr(theirs, private.OUR_SPAN, None)
        if known is not None:  # where MLflow shares OpenTelemetry's provider, its bridge was quicker
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
            theirs.start_time or 0,
        )
        trace.add(ours)
        ours.exported = self._is_shared
        self._known[span_id] = ours
        setattr(theirs, private.OUR_SPAN, ours)  # keeps ours alive as long as theirs is

    def _trace(self) -> LiveTrace | None:
        """Our trace: held by its root, and when it is over by whoever goes on in its context."""
        trace = self._known[self.root.span_id].trace or current_trace()
        return trace if trace is not None and self in trace.followers else None

    def ended(self, theirs: ReadableSpan) -> None:
        """A span of MLflow's has ended: record what it has become."""
        context = theirs.get_span_context()
        span_id = "" if context is None else f"{context.span_id:016x}"
        ours = self._known.get(span_id)
        self._open.end(span_id)
        if isinstance(ours, BroughtSpan) and ours.end_time_ns is None:
            if ours.recorded:
                convert.read_mlflow_span(ours, theirs)
            ours.end(theirs.end_time)

    def is_within(self, span: Span, outer: Span) -> bool:
        """Whether a span of ours is another, or somewhere below it."""
        inner: Span | None = span
        while inner is not None and inner is not outer:
            inner = self._known.get(inner.parent_id or "")
        return inner is not None

    def close_abandoned(self, error: BaseException | None) -> None:
        """End what nobody will: MLflow leaves the spans of generators open that are not read to their end.

        It would keep back the whole trace for them.
        """
        for span_id in self._open.abandoned():
            theirs = private.find(self.trace_id, span_id)
            if theirs is not None:
                theirs.set_attribute("wherefrom.generator.closed_early", value=True)
                if error is not None:
                    convert.fail(theirs, f"{type(error).__name__}: {clean_text(error)}")
                theirs.end()

    # Spans of ours, on their way into MLflow's.

    def theirs(self, span: LiveSpan) -> MLflowSpan | None:
        """MLflow's span for one of ours; begun there now, unless it is known. ``None`` when that fails."""
        if span is self._known[self.root.span_id]:
            return self.root
        if span.span_id in self._known:
            return private.find(self.trace_id, span.span_id)
        trace = span.trace
        parent = None if trace is None else self._theirs_of_parent(trace, span)
        if parent is None or not span.recorded:  # one too many is in neither: what is below it has its parent
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

    def __call__(self, trace: LiveTrace, ended: Sequence[Span]) -> None:
        """Our trace is over, or a span of it that was late has ended: so it is there."""
        self._complete_all(trace, ended)
        if self._ended:
            return
        self._ended = True
        try:
            self._end(trace)
        except Exception as error:  # noqa: BLE001 - another tracer's trouble
            ledger.failed("mlflow", error)

    def tell(self, trace: LiveTrace) -> None:
        """Say what is known: a root of another's may end now, and MLflow keeps back one with open spans."""
        self.agree(trace)
        self._complete_all(trace, [span for span in trace.data.spans if span.end_time_ns is not None])

    def _complete_all(self, trace: LiveTrace, ended: Sequence[Span]) -> None:
        for span in ended:
            if isinstance(span, LiveSpan) and not isinstance(span, BroughtSpan) and span is not trace.root:
                try:
                    self._complete(span)
                except Exception as error:  # noqa: BLE001 - another tracer's trouble
                    ledger.failed("mlflow", error)

    def _complete(self, span: LiveSpan) -> None:
        theirs = self.theirs(span)
        if theirs is not None and theirs.end_time_ns is None and span.end_time_ns is not None:
            convert.write_mlflow_span(theirs, span)
            theirs.end(end_time_ns=span.end_time_ns)

    def _end(self, trace: LiveTrace) -> None:
        root = trace.root
        try:
            self.agree(trace)
            if self.owned:
                private.rename(self.root, root.name)
                convert.write_mlflow_span(self.root, root)
            else:
                convert.fill_values(self.root, root)
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
                self.root.end(end_time_ns=root.end_time_ns)


counterparts: WeakValueDictionary[int, Counterpart] = WeakValueDictionary()
"""Requests that MLflow knows, by the number of the trace, as long as anyone needs them."""

_OF_PROCESS: Final = keys.SOURCE_KEYS | {keys.TRACE_NAME_TAG}


def counterpart_of(trace: LiveTrace) -> Counterpart | None:
    """The trace as MLflow knows it, where a bridge has begun it there."""
    return next((follower for follower in trace.followers if isinstance(follower, Counterpart)), None)


def of_number(trace_number: int) -> Counterpart | None:
    """The request that a trace of MLflow's is."""
    return counterparts.get(trace_number)


def _otel_id(trace_id: str) -> int:
    return int(trace_id[-32:], 16)  # also of trace:/<location>/<id>
