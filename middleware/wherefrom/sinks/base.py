"""The sink protocol, the in-memory sink for tests, and a sink that writes to several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..model import Assessment, Trace
from ..process import ledger


class Sink(Protocol):
    """A destination of traces: a store, an exporter, a queue."""

    def write(self, traces: Sequence[Trace]) -> None:
        """Write traces. They are finished and do not change any more.

        A trace with an id that was written before brings spans that ended late: they are added to it, in
        place of those with the same id.

        Raises:
            StoreUnavailableError: the same call may succeed later; with ``left``, only these traces were not
                written.
            Exception: any other error is final for these traces.
        """


class MemorySink:
    """A sink for tests: ``traces`` is a list of every trace, late spans joined to theirs.

    ``assessments`` is a list of all feedback that was logged.
    """

    def __init__(self) -> None:
        self.traces: list[Trace] = []
        self.assessments: list[Assessment] = []

    def write_assessments(self, assessments: Sequence[Assessment]) -> None:
        """Append feedback."""
        self.assessments.extend(assessments)

    def write(self, traces: Sequence[Trace]) -> None:
        """Append the traces."""
        for trace in traces:
            known = next((kept for kept in self.traces if kept.info.trace_id == trace.info.trace_id), None)
            if known is None:
                self.traces.append(trace)
            else:
                late = {span.span_id: span for span in trace.data.spans}
                spans = known.data.spans
                spans[:] = [late.pop(span.span_id, span) for span in spans]
                spans.extend(late.values())
        ledger.stored(len(traces))

    def close(self) -> None:
        """Do nothing: the traces stay."""


class FanOut:
    """Writes to several sinks; one that fails does not keep the traces from the others."""

    def __init__(self, *sinks: Sink) -> None:
        self.sinks = sinks

    def write(self, traces: Sequence[Trace]) -> None:
        """Hand the traces to each sink."""
        for sink in self.sinks:
            try:
                sink.write(traces)
            except Exception as error:  # noqa: BLE001 - the next sink must still get them
                ledger.failed(type(sink).__name__, error)
                ledger.dropped("sink_failed", len(traces))
