"""MLflow's own client, in a process that has it: a line of JSON asks for a call, a line of JSON answers.

    python asking.py TRACKING_URI

A call is a name and keywords: a method of ``MlflowClient``, ``mlflow.`` and a function, or one defined here;
and the variables of the environment in which it runs.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

warnings.simplefilter("ignore")
entities: Any = import_module("mlflow.entities")
mlflow: Any = import_module("mlflow")  # by name: what checks the types of this file need not have it
logging.disable(logging.CRITICAL)

client: Any = None


# The two functions of MLflow's guide to production context, in its calls and attributes.
def error_rates(experiment: str, versions: list[str]) -> dict[str, float | None]:
    rates: dict[str, float | None] = {}
    for version in versions:
        traces = client.search_traces(
            experiment_ids=[experiment],
            filter_string="metadata.`mlflow.source.type` = 'production' "
            f"AND metadata.app_version = '{version}'",
        )
        if not traces:
            rates[version] = None
            continue
        error_count = sum(1 for t in traces if t.info.status == "ERROR")
        rates[version] = (error_count / len(traces)) * 100
    return rates


def latency_by_flag(experiment: str, flag: str) -> dict[str, float]:
    averages = {}
    for label, value in (("control", "false"), ("treatment", "true")):
        traces = client.search_traces(
            filter_string=f"metadata.feature_flag_{flag} = '{value}'",
            experiment_ids=[experiment],
        )
        latencies = [t.info.execution_time_ms for t in traces if t.info.execution_time_ms]
        averages[label] = sum(latencies) / len(latencies)
    return averages


def search_all(searches: list[dict[str, Any]], locations: list[str]) -> list[Any]:
    """Ids of the traces that each search finds, or the code of the error."""
    return [_search(locations=locations, **search) for search in searches]


def info_of(trace_id: str) -> dict[str, Any]:
    """What code that reads a trace sees of its info; MLflow's own ``to_dict`` cuts metadata and tags."""
    names = (
        "trace_id experiment_id client_request_id request_time execution_duration state status"
        " request_preview response_preview trace_metadata tags"
    )
    info = client.get_trace(trace_id).info
    return {name: getattr(info, name) for name in names.split()}


def spans_of(trace_id: str) -> list[dict[str, Any]]:
    """What code that reads a trace sees of its spans."""
    return [
        {
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent_id": span.parent_id,
            "name": span.name,
            "span_type": span.span_type,
            "start_time_ns": span.start_time_ns,
            "end_time_ns": span.end_time_ns,
            "status": [span.status.status_code.value, span.status.description or ""],
            "inputs": span.inputs,
            "outputs": span.outputs,
            "attributes": {
                key: value for key, value in span.attributes.items() if not key.startswith("mlflow.")
            },
            "events": [[event.name, event.timestamp, event.attributes] for event in span.events],
            "links": [[link.trace_id, link.span_id, link.attributes] for link in span.links],
        }
        for span in client.get_trace(trace_id).data.spans
    ]


def assessments_of(trace_id: str) -> list[dict[str, Any]]:
    """What code that reads a trace sees of its feedback and expectations."""
    names = "assessment_id name value rationale metadata span_id overrides valid create_time_ms"
    return [
        {
            **{name: getattr(one, name) for name in names.split()},
            "kind": type(one).__name__,
            "source": [one.source.source_type, one.source.source_id],
            "error": one.error and one.error.to_dictionary(),
        }
        for one in client.get_trace(trace_id).info.assessments
    ]


def assess(trace_id: str) -> list[str]:
    """Everything that MLflow's functions do with feedback; the ids, in the order of their making."""
    human = entities.AssessmentSource("HUMAN", "ada")
    first = mlflow.log_feedback(trace_id=trace_id, name="helpful", value=True, source=human, rationale="yes")
    score = mlflow.log_feedback(
        trace_id=trace_id, name="score", value=0.5, metadata={"by": "x"}, span_id="0a"
    )
    failed = mlflow.log_feedback(
        trace_id=trace_id, name="judge", error=entities.AssessmentError("RATE", "slow down")
    )
    mlflow.update_assessment(
        trace_id=trace_id,
        assessment_id=score.assessment_id,
        assessment=entities.Feedback(name="score", value=0.75, rationale="read again", metadata={"at": "y"}),
    )
    expected = mlflow.log_expectation(trace_id=trace_id, name="answer", value={"city": ["Paris", 1]})
    second = mlflow.override_feedback(
        trace_id=trace_id, assessment_id=first.assessment_id, value=False, rationale="no"
    )
    gone = mlflow.log_feedback(trace_id=trace_id, name="gone", value="x")
    mlflow.delete_assessment(trace_id=trace_id, assessment_id=gone.assessment_id)
    mlflow.delete_assessment(trace_id=trace_id, assessment_id=gone.assessment_id)
    assert mlflow.get_assessment(trace_id, second.assessment_id).value is False
    return [one.assessment_id for one in (first, score, failed, expected, second)]


def _search(**arguments: Any) -> Any:
    try:
        found = client.search_traces(max_results=500, include_spans=False, **arguments)
    except mlflow.MlflowException as error:
        return {"error": error.error_code}
    return [trace.info.trace_id for trace in found]


def find(name: str) -> Callable[..., Any]:
    if name in globals():
        return globals()[name]  # type: ignore[no-any-return]
    owner = mlflow if name.startswith("mlflow.") else client
    return getattr(owner, name.removeprefix("mlflow."))  # type: ignore[no-any-return]


def plain(value: Any) -> Any:
    """What JSON can hold of an answer."""
    if isinstance(value, list):
        token = {"token": value.token} if hasattr(value, "token") else {}
        items = [plain(item) for item in value]
        return {"items": items, **token} if token else items
    if hasattr(value, "traces"):  # a session
        return [value.id, [trace.info.trace_id for trace in value.traces]]
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # a frame
        return {"columns": list(value.columns), "rows": json.loads(value.to_json(orient="records"))}
    if hasattr(value, "lifecycle_stage"):
        return {"id": value.experiment_id, "name": value.name, "stage": value.lifecycle_stage}
    return value.to_dict() if hasattr(value, "to_dict") else value


def answer(name: str, keywords: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    os.environ.update(environment)
    try:
        return {"found": plain(find(name)(**keywords))}
    except Exception as error:
        code = getattr(error, "error_code", None)
        return {"error": type(error).__name__, "code": code, "message": str(error)}
    finally:
        for variable in environment:
            del os.environ[variable]


def main() -> None:
    global client
    answers, sys.stdout = sys.stdout, sys.stderr
    mlflow.set_tracking_uri(sys.argv[1])
    client = mlflow.MlflowClient()
    for line in sys.stdin:
        print(json.dumps(answer(*json.loads(line)), default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
