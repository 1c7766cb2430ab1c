"""The API for handlers: the current trace and span, new spans, and MLflow's ``update_current_trace``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, TypeVar

from .. import keys
from .._capture.values import MAX_KEY_LENGTH, MAX_PAIRS, clean_text, first_pairs, hooked_text
from ..context import Tokens, enter, innermost, leave, span_var, trace_var
from ..exceptions import InvalidTraceError
from ..model import Span, SpanType, TraceState
from ..process import ledger, logger, process
from ..propagation import SpanContext
from . import assembly
from .bridge import open_sessions, sync_sessions
from .generators import GeneratorBlock, generator_frame, located
from .live import LiveSpan, LiveTrace

Pairs = Mapping[Any, Any] | Iterable[tuple[Any, Any]]
T = TypeVar("T")


def current_trace() -> LiveTrace | None:
    """Return the trace of the current request or traced call, or ``None`` outside of one."""
    trace = located()[0] if process.locates else trace_var.get()
    return trace if isinstance(trace, LiveTrace) else None


def current_span() -> LiveSpan | None:
    """Return the innermost open span, or ``None`` outside a trace."""
    span = _innermost()
    return span if isinstance(span, LiveSpan) else None


def _innermost() -> Span | None:
    if process.locates:
        span = located()[1]
        if span is not span_var.get():
            return span
    return innermost()


class SpanBlock:
    """A ``with`` block whose span is current inside, ends with it, and records what is raised."""

    __slots__ = ("_generator", "_tokens", "span")

    def __init__(self, span: LiveSpan) -> None:
        self.span = span

    def __enter__(self) -> LiveSpan:
        frame = generator_frame()
        self._generator = None if frame is None else GeneratorBlock(frame, self.span)
        self._tokens: Tokens = enter(self.span.trace, self.span)
        return self.span

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._generator is None or self._generator.end():
            leave(self._tokens)
            if span_var.get() is self.span:
                # The block began in another context: a generator's step that runs in another one.
                enter(_before(self._tokens[0]), _before(self._tokens[1]))
        end_span(self.span, error)


def open_span(name: str, span_type: str = SpanType.UNKNOWN) -> LiveSpan:
    """Start a child of the current span, or a trace where there is none; ``end_span`` ends it."""
    trace = current_trace()
    if trace is None:
        return open_trace(name, span_type).root
    return trace.start_span(name, span_type, _innermost())


def open_trace(
    name: str, span_type: str, caller: SpanContext | None = None, join: bool | None = None
) -> LiveTrace:
    """Start a trace outside a request. ``join`` the caller's trace or not; by default, see ``upstream``."""
    recorder = assembly.default_recorder()
    if join is None:
        join = recorder.upstream == "continue"
    trace = recorder.start(clean_text(name), span_type, caller if join else None)
    if process.generators:
        trace.root.outer = located()[1]
    open_sessions(process.bridges, trace, None)
    return trace


def end_span(span: LiveSpan, error: BaseException | None = None, *, flushes: bool = True) -> None:
    """End a span of ``open_span`` and record ``error``. If the span is a root, its trace ends too.

    ``flushes``: a worker process writes the trace at once. Not from ``__del__``: the garbage collector may
    run it in the writer thread, or inside the queue's lock.

    Cancellation, ``KeyboardInterrupt`` and ``SystemExit`` are errors. The early close of a generator and
    the exceptions of a client disconnect are not.
    """
    try:
        if error is not None and not isinstance(error, GeneratorExit):
            record_failure(span, error)
        trace = span.trace
        span.end()
        if trace is not None and span is trace.root and not trace.of_request:
            trace.recorder.finish(trace)
            if flushes and process.is_worker:
                assembly.flush_task()
    except Exception as failure:  # noqa: BLE001 - what the app did to the span must not cost it the call
        ledger.failed("end of a span", failure)


def record_failure(span: LiveSpan, error: BaseException) -> None:
    """Record an exception of the span's code; that of a client disconnect only as an event."""
    request = None if span.trace is None else span.trace.request
    if request is not None and request.excuses(error):
        span.add_exception(error)
    else:
        span.escape(error)


def start_span(
    name: str, *, span_type: str = SpanType.UNKNOWN, attributes: Mapping[str, Any] | None = None
) -> SpanBlock:
    """Record a block of code as a span.

    >>> with start_span("retrieve") as span:
    ...     span.set_outputs(retrieve())

    Outside a request the span is the root of a trace of its own. ``span_type`` is a ``SpanType`` or any
    string; ``attributes`` are JSON values. An exception of the block is recorded and propagates.
    """
    span = open_span(name, span_type)
    if attributes:
        span.set_attributes(attributes)
    return SpanBlock(span)


def update_current_trace(
    tags: Pairs | None = None,
    metadata: Pairs | None = None,
    client_request_id: str | None = None,
    request_preview: str | None = None,
    response_preview: str | None = None,
    state: TraceState | str | None = None,
    model_id: str | None = None,
    session_id: str | None = None,
    user: str | None = None,
) -> None:
    """Add to the current trace, with the meaning of ``mlflow.update_current_trace``.

    Repeated calls merge; the last write wins. ``session_id``, ``user`` and ``model_id`` win over the same
    keys in ``metadata``. Values become strings; ``None`` adds nothing and removes nothing; long values are
    cut to ``max_metadata_length``, keys to 250 characters. ``state`` (``"OK"`` or ``"ERROR"``)
    overrides the state that follows from the outcome. ``client_request_id`` is also sent to the client. If
    the response has already started with another id, that id stays, and the new one is recorded as metadata
    ``wherefrom.client_request_id``. Outside a trace a warning is logged, and nothing else happens.

    Raises:
        InvalidTraceError: ``state`` is neither OK nor ERROR, a preview is not a string, or ``tags`` or
            ``metadata`` are not pairs; then nothing is changed.
    """
    trace = current_trace()
    if trace is None:
        logger.warning(
            "No active trace found: wherefrom.update_current_trace() works inside a request or a traced call"
        )
        return
    stated = _stated(state)
    _check_preview("request_preview", request_preview)
    _check_preview("response_preview", response_preview)
    named = {keys.SESSION: session_id, keys.USER: user, keys.MODEL_ID: model_id or None}
    new_metadata, more_metadata = _pairs("metadata", metadata)
    new_tags, more_tags = _pairs("tags", tags)
    new_metadata |= _given(named)
    if new_metadata.get(keys.USER) is not None:
        new_metadata[keys.USER] = trace.recorder.user(
            clean_text(new_metadata[keys.USER], trace.recorder.max_length)
        )

    sync_sessions(trace)
    info = trace.info
    trace.add_metadata(new_metadata, more_metadata)
    trace.add_tags(new_tags, more_tags)
    trace.stated = stated or trace.stated
    info.request_preview = _preview("request_preview", request_preview, trace) or info.request_preview
    info.response_preview = _preview("response_preview", response_preview, trace) or info.response_preview
    if client_request_id is not None:
        trace.set_request_id(clean_text(client_request_id, trace.recorder.max_length))
    sync_sessions(trace)


def record_feature_flag(name: str, value: Any) -> None:
    """Record the value of a feature flag as metadata ``feature_flag_<name>``.

    Booleans become ``"true"`` and ``"false"``, anything else ``str(value)``. Does nothing outside a trace.
    """
    trace = current_trace()
    if trace is not None:
        text = str(value).lower() if isinstance(value, bool) else value
        trace.add_metadata({f"{keys.FEATURE_FLAG_PREFIX}{clean_text(name, MAX_KEY_LENGTH)}": text})


def _before(token: Token[T | None]) -> T | None:
    return None if token.old_value is Token.MISSING else token.old_value


def _stated(state: TraceState | str | None) -> TraceState | None:
    if state is None:
        return None
    if state in (TraceState.OK, TraceState.ERROR):
        return TraceState(state)
    raise InvalidTraceError(f"State must be either 'OK' or 'ERROR', but got {clean_text(state)!r}.")


def _check_preview(name: str, preview: object) -> None:
    if preview is not None and not isinstance(preview, str):
        raise InvalidTraceError(f"{name} must be a string, but got {type(preview).__name__}.")


def _preview(name: str, preview: str | None, trace: LiveTrace) -> str | None:
    return preview and hooked_text(name, preview, trace.recorder.max_length)


def _pairs(name: str, pairs: Pairs | None) -> tuple[dict[Any, Any], int]:
    """Return the pairs of one call, and how many exceed the limit."""
    try:
        items, more = first_pairs(pairs or {}, MAX_PAIRS)
        return dict(items), more
    except (TypeError, ValueError):
        raise InvalidTraceError(
            f"{name} must be a dict of strings, but got {type(pairs).__name__}."
        ) from None


def _given(pairs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in pairs.items() if value is not None}
