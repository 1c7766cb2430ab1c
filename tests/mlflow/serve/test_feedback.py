"""Feedback and MLflow: its client gives it through ``wherefrom serve``; its server keeps what is exported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from wherefrom import Trace
from wherefrom.client import TraceClient
from wherefrom.exceptions import StoreUnavailableError
from wherefrom.exporters.delivery import deliver
from wherefrom.mlflow.exporter import MLflowExporter
from wherefrom.mlflow.reader import MLflowReader
from wherefrom.model import AssessmentError, AssessmentKind, new_assessment
from wherefrom.stores import Store, open_store

from ..server import MISSING, MLflowServer, mlflow_python
from .conftest import reading, serving

MakeTrace = Callable[..., Trace]
TRACES = "/api/3.0/mlflow/traces"


@pytest.mark.skipif(mlflow_python() is None, reason=MISSING)
def test_mlflow_s_client_gives_feedback_and_reads_it(tmp_path: Path, make_trace: MakeTrace) -> None:
    """Made, updated, overridden and removed; searched for; and what MLflow reads is what is stored."""
    url = f"sqlite:///{tmp_path / 'wherefrom.db'}"
    trace = make_trace("a")
    trace_id = trace.info.trace_id
    store = open_store(url)
    store.write([trace, make_trace("b")])
    store.close()
    with serving(url) as address, reading(address) as client:
        ids = client.found("assess", trace_id=trace_id)
        seen = client.found("assessments_of", trace_id=trace_id)
        experiment = client.found("get_experiment_by_name", name="default")["id"]
        arguments = {"filter_string": "feedback.helpful = 'false'", "locations": [experiment]}
        (found,) = client.found("search_traces", **arguments)["items"]
    with TraceClient(url) as ours:
        assessments = ours.get_trace(trace_id).info.assessments
    assert [one["assessment_id"] for one in seen] == [one.assessment_id for one in assessments]
    assert {one["assessment_id"] for one in seen} == set(ids)
    assert found["info"]["trace_id"] == trace_id
    by_id = {one["assessment_id"]: one for one in seen}
    first, score, failed, expected, second = (by_id[id_] for id_ in ids)
    assert (first["value"], first["valid"], first["source"]) == (True, False, ["HUMAN", "ada"])
    assert (second["value"], second["valid"], second["overrides"]) == (False, True, first["assessment_id"])
    assert (score["value"], score["rationale"], score["span_id"]) == (0.75, "read again", "0a")
    assert score["metadata"] == {"by": "x", "at": "y"}
    assert (failed["value"], failed["error"]["error_code"]) == (None, "RATE")
    assert (expected["kind"], expected["value"]) == ("Expectation", {"city": ["Paris", 1]})


async def test_what_cannot_be_assessed_is_one_sentence(http: httpx.AsyncClient, store: Store) -> None:
    """Feedback on a trace that is not stored yet is taken; an issue, and what is no JSON object, is not."""
    source = {"source_type": "HUMAN", "source_id": "ada"}
    good = {"assessment_name": "helpful", "source": source, "feedback": {"value": 1.5}}
    place = f"{TRACES}/tr-later/assessments"
    made = (await http.post(place, json={"assessment": good})).json()["assessment"]
    assert made["trace_id"] == "tr-later"
    assert (await http.get(f"{place}/{made['assessment_id']}")).json() == {"assessment": made}
    cases = [
        (good | {"feedback": None, "issue": {"issue_name": "x"}}, "one of feedback and expectation"),
        (good | {"source": {"source_type": "ROBOT"}}, "source takes HUMAN, LLM_JUDGE or CODE"),
        (good | {"assessment_name": ""}, "the name of feedback takes 1 to 250 characters"),
        (good | {"create_time": "soon"}, "create_time takes a time such as"),
        ("helpful", "assessment takes an object"),
    ]
    for given, message in cases:
        answer = await http.post(place, json={"assessment": given})
        assert answer.status_code == 400
        assert message in answer.json()["message"]
    body = {"assessment": {"expectation": {"value": 1}}, "update_mask": "expectation"}
    answer = await http.patch(f"{place}/{made['assessment_id']}", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    answer = await http.patch(f"{place}/a-none", json={"assessment": good, "update_mask": "feedback"})
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_mlflow_s_server_keeps_feedback(mlflow_server: MLflowServer, make_trace: MakeTrace) -> None:
    """Exported with its trace or after it, and imported again: as it was, also what was overridden."""
    experiment, trace_id = f"feedback {uuid4().hex}", f"tr-{uuid4().hex}"
    trace = make_trace("a", experiment=experiment)
    trace.info.trace_id = trace_id
    for span in trace.data.spans:
        span.trace_id = trace_id
    first = new_assessment(trace_id, "helpful", True, source="HUMAN", rationale="yes", valid=False)
    trace.info.assessments = [
        replace(first, create_time_ms=first.create_time_ms - 5),
        new_assessment(trace_id, "helpful", False, overrides=first.assessment_id),
        new_assessment(
            trace_id, "answer", {"k": [1.5]}, kind=AssessmentKind.EXPECTATION, metadata={"a": "b"}
        ),
        new_assessment(trace_id, "judge", None, error=AssessmentError("RATE", "slow down", None)),
    ]
    trace.info.assessments.sort(key=lambda one: one.order())
    exporter = MLflowExporter(mlflow_server.url, environ={}, timeout=60)
    assert exporter.missing([trace]) == [trace]
    for _ in range(2):
        assert deliver(exporter, [trace]) == []
    assert exporter.missing([trace]) == []
    later = new_assessment(trace_id, "score", 0.5, span_id=trace.data.spans[0].span_id)
    too_early = new_assessment(f"tr-{uuid4().hex}", "score", 1.0)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError) as raised:
            exporter.write_assessments([later, too_early])
        assert raised.value.left == [too_early]
    trace.info.assessments = sorted([*trace.info.assessments, later], key=lambda one: one.order())
    assert exporter.missing([trace]) == []
    exporter.close()
    reader = MLflowReader(mlflow_server.url, environ={})
    (page,) = reader.pages(experiment, mlflow_server.experiment(experiment.replace(" ", "%20")))
    reader.close()
    assert page.refused == []
    (listed,) = page.listed
    assert {one.assessment_id: one for one in listed.info.assessments} == {
        one.assessment_id: one for one in trace.info.assessments
    }
