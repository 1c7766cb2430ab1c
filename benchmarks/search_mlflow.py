"""MLflow's side of search.py: its own store, filled and searched by its public client.

    python benchmarks/search_mlflow.py URL TRACES.jsonl

search.py runs it with a Python that has MLflow. It fills an empty store with the traces in the file (MLflow's
trace JSON, one a line), then runs and times the queries on its standard input, a line of JSON each.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from typing import Any

warnings.simplefilter("ignore")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
mlflow: Any = import_module("mlflow")  # by name: the type checker's environment may lack it
mlflow_entities: Any = import_module("mlflow.entities")
tracing_client: Any = import_module("mlflow.tracing.client")
logging.disable(logging.CRITICAL)

EXPERIMENT = "chat"
ALL = 50_000  # MLflow's largest page


def fill(url: str, experiment: str, path: str) -> float:
    """Write the traces as MLflow's own exporter does, a trace and then its spans; return the seconds."""
    client = tracing_client.TracingClient(url)
    with open(path, encoding="utf-8") as lines:
        traces = [mlflow_entities.Trace.from_dict(json.loads(line)) for line in lines]
    started = time.perf_counter()
    for trace in traces:
        trace.info.trace_location = mlflow_entities.TraceLocation.from_experiment_id(experiment)
        client.start_trace(trace.info)
        client.log_spans(experiment, trace.data.spans)
    return time.perf_counter() - started


def compare(client: Any, experiment: str) -> list[str]:
    """Do what MLflow's guide does with one search: group every trace's info by version, without a test."""
    durations: dict[str, list[int]] = defaultdict(list)
    errors: dict[str, int] = defaultdict(int)
    for trace in client.search_traces(experiment_ids=[experiment], max_results=ALL, include_spans=False):
        version = trace.info.trace_metadata["app_version"]
        durations[version].append(trace.info.execution_duration)
        errors[version] += trace.info.state == "ERROR"
    return [
        f"{version}: {len(times)}, {errors[version]} failed, p95 {statistics.quantiles(times, n=100)[94]} ms"
        for version, times in durations.items()
    ]


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    _, url, lines = sys.argv
    client = mlflow.MlflowClient(tracking_uri=url)
    known = client.get_experiment_by_name(EXPERIMENT)
    experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT)
    seconds = None if known else fill(url, experiment, lines)

    def search(spans: bool, text: str | None) -> list[str]:
        found = client.search_traces(
            experiment_ids=[experiment], filter_string=text, max_results=100, include_spans=spans
        )
        return [trace.info.trace_id for trace in found]

    kinds: dict[str, Callable[[str | None], list[str]]] = {
        "search": lambda text: search(True, text),
        "infos": lambda text: search(False, text),
        "compare": lambda _: compare(client, experiment),
    }
    print(json.dumps({"version": mlflow.__version__, "seconds": seconds}), file=answers, flush=True)
    for line in sys.stdin:
        kind, text = json.loads(line)
        started = time.perf_counter()
        found = kinds[kind](text)
        took = (time.perf_counter() - started) * 1000
        print(json.dumps({"ms": took, "found": found}), file=answers, flush=True)


if __name__ == "__main__":
    main()
