"""Records of ``wherefrom dataset --format mlflow`` in an evaluation dataset of a real server."""

from __future__ import annotations

import json

import pytest

from wherefrom._records import DatasetFormat
from wherefrom.analysis.datasets import make_lines

from ..web.pages.test_conversation import make_chat
from .server import MLflowServer


def test_a_server_keeps_the_records(mlflow_server: MLflowServer) -> None:
    """With inputs, outputs, tags and the trace that they are from."""
    traces = [make_chat(at, {"messages": [{"role": "user", "content": f"question {at}"}]}) for at in (1, 2)]
    lines = [line.decode() for line in make_lines(traces, DatasetFormat.MLFLOW, pytest.fail)]
    experiment = mlflow_server.new_experiment("datasets")
    made = mlflow_server.call("3.0/mlflow/datasets/create", {"name": "chats", "experiment_ids": [experiment]})
    records = f"3.0/mlflow/datasets/{made['dataset']['dataset_id']}/records"
    assert mlflow_server.call(records, {"records": f"[{','.join(lines)}]"})["inserted_count"] == 2
    kept = json.loads(mlflow_server.call(records)["records"])
    known = {one["source_id"]: one for one in kept}
    for trace, line in zip(traces, lines, strict=True):
        found, sent = known[trace.info.trace_id], json.loads(line)
        assert {name: found[name] for name in sent} == sent
