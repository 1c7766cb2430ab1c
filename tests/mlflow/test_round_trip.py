"""Any trace, to MLflow's own server and back: equal, but for the differences that the README lists."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from wherefrom import Span, SpanStatus, Trace
from wherefrom.exporters.delivery import deliver
from wherefrom.mlflow.exporter import MLflowExporter
from wherefrom.mlflow.reader import MLflowReader
from wherefrom.model import SpanStatusCode

from ..test_model import traces
from .server import MLflowServer


def as_new(trace: Trace, experiment: str) -> Trace:
    """The trace under an id that no server has seen, each span once."""
    new = deepcopy(trace)
    new.info.experiment, new.info.trace_id = experiment, f"tr-{uuid4().hex}"
    spans = {span.span_id: span for span in new.data.spans}
    for span in spans.values():
        span.trace_id = new.info.trace_id
        span.end_time_ns = span.end_time_ns or None  # in OTLP, the year 1970 is no time
    new.data.spans = list(spans.values())
    return new


def as_mlflow_has_it(span: Span) -> Span:
    """A status says something only of an error, and huge integers are text."""
    is_error = span.status.code is SpanStatusCode.ERROR
    return replace(
        span,
        status=span.status if is_error else SpanStatus(span.status.code),
        inputs=as_value(span.inputs),
        outputs=as_value(span.outputs),
        attributes=as_value(span.attributes),
        events=[replace(event, attributes=as_value(event.attributes)) for event in span.events],
        links=as_value(span.links),
    )


def as_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_value(item) for item in value]
    return str(value) if type(value) is int and value >= 2**63 else value


def without_made_previews(trace: Trace, back: Trace) -> None:
    """Take away the previews that MLflow has made of what the root span has."""
    for name in ("request_preview", "response_preview"):
        if getattr(trace.info, name) is None and getattr(back.info, name) is not None:
            assert any(span.parent_id is None for span in trace.data.spans)
            setattr(back.info, name, None)


def by_id(spans: list[Span]) -> dict[str, Span]:
    return {span.span_id: span for span in spans}


@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(drawn=st.lists(traces(), min_size=10, max_size=20))
def test_any_trace_comes_back_as_it_was(mlflow_server: MLflowServer, drawn: list[Trace]) -> None:
    """Odd keys, deep values, negative and huge numbers, several roots, and none."""
    experiment = f"round trip {uuid4().hex}"
    sent = {trace.info.trace_id: trace for trace in (as_new(trace, experiment) for trace in drawn)}
    exporter = MLflowExporter(mlflow_server.url, environ={}, timeout=60)
    assert deliver(exporter, list(sent.values())) == []
    exporter.close()
    reader = MLflowReader(mlflow_server.url, environ={})
    (page,) = reader.pages(experiment, mlflow_server.experiment(experiment.replace(" ", "%20")))
    found, refused = reader.read(page.listed)
    reader.close()
    assert refused == page.refused == []
    assert {trace.info.trace_id for trace in found} == sent.keys()
    for back in found:
        trace = sent[back.info.trace_id]
        without_made_previews(trace, back)
        assert back.info == trace.info
        ended = [as_mlflow_has_it(span) for span in trace.data.spans if span.end_time_ns is not None]
        kept = by_id(back.data.spans)
        assert kept.keys() == by_id(ended).keys()
        for span in ended:
            assert kept[span.span_id] == span
