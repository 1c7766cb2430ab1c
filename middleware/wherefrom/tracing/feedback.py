"""Feedback on a trace from the app: checked at once, stored by the queues of its traces."""

from __future__ import annotations

from ..model import Assessment, new_feedback
from ..process import ledger, process
from ..sinks import BackgroundSink, FanOut
from . import assembly
from .api import current_trace


def log_feedback(
    trace_id: str,
    name: str,
    value: object,
    *,
    span_id: str | None = None,
    comment: str | None = None,
    source: object = None,
) -> Assessment:
    """Record feedback on a trace, which may still run or wait to be stored; return it. Never blocks.

    ``value`` is true or false, a number, text, or a list or an object of those. ``source`` says who it is
    from: MLflow's ``AssessmentSource``, ``{"source_type": "HUMAN", "source_id": "ada"}``, or a type alone:
    ``"HUMAN"``, ``"LLM_JUDGE"`` or, by default, ``"CODE"``. It goes to where traces go, by their queue: to
    the store, and to MLflow servers. ``wherefrom.flush()`` waits for it.

    Raises:
        InvalidTraceError: an argument cannot be used; the message names it and what it takes.
    """
    feedback = new_feedback(trace_id, name, value, span_id=span_id, comment=comment, source=source)
    trace = current_trace()
    sink = (assembly.default_recorder() if trace is None else trace.recorder).sink
    taken = [_give(one, feedback) for one in (sink.sinks if isinstance(sink, FanOut) else (sink,))]
    if not any(taken):
        ledger.dropped("feedback_without_store")
    elif trace is None and process.is_worker:
        assembly.flush_task()
    return feedback


def _give(sink: object, feedback: Assessment) -> bool:
    """Queue or write feedback; return whether the sink takes any."""
    if isinstance(sink, BackgroundSink):
        return sink.put_assessment(feedback)
    write = getattr(sink, "write_assessments", None)
    if write is not None:
        try:
            write([feedback])
        except Exception as error:  # noqa: BLE001 - as for a trace, it must not cost the app the request
            ledger.failed(type(sink).__name__, error)
    return write is not None
