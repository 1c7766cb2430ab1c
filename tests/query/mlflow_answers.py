"""MLflow's side of test_as_mlflow.py, run by a Python that has MLflow: its own store, asked by its client.

    python mlflow_answers.py FOLDER

Reads ``questions.json`` there, traces and what to ask of them, and writes ``answers.json``: for each question
the ids of the traces in their order, or ``null`` where MLflow takes it for an error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
mlflow: Any = import_module("mlflow")  # by name: what checks the types of this file need not have it
entities: Any = import_module("mlflow.entities")
tracing: Any = import_module("mlflow.tracing.client")
logging.disable(logging.CRITICAL)


def main() -> None:
    folder = Path(sys.argv[1])
    given = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    url = f"sqlite:///{folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=url)
    experiment = client.create_experiment("main")
    writer = tracing.TracingClient(url)
    for data in given["traces"]:
        trace = entities.Trace.from_dict(data)
        trace.info.trace_location = entities.TraceLocation.from_experiment_id(experiment)
        writer.start_trace(trace.info)
        if trace.data.spans:
            writer.log_spans(experiment, trace.data.spans)

    def answer(filter_string: str | None, order_by: list[str] | None) -> list[str] | None:
        try:
            found = client.search_traces(
                locations=[experiment],
                filter_string=filter_string,
                order_by=order_by,
                max_results=500,
                include_spans=False,
            )
        except mlflow.exceptions.MlflowException:
            return None
        return [trace.info.trace_id for trace in found]

    answers = [answer(*question) for question in given["questions"]]
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main()
