"""What reads an MLflow server reads this: the importer copies one store into another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from wherefrom import Trace
from wherefrom.cli.app import app
from wherefrom.client import TraceClient
from wherefrom.stores import open_store

from ...query import recorded
from .conftest import serving

MakeTrace = Callable[..., Trace]


def copied(origin: str, target: str) -> list[dict[str, Any]]:
    """The traces of a store after ``wherefrom import`` from the one that is served."""
    with serving(origin) as address:
        result = CliRunner().invoke(app, ["--store", target, "import", "mlflow", address])
        assert result.exit_code == 0, result.output
    with TraceClient(target) as client:
        return [trace.to_dict() for trace in client.search_traces(max_results=1000)]


def test_a_store_is_copied(tmp_path: Path, make_trace: MakeTrace) -> None:
    """Every trace arrives as it was, with its spans, under the name of its experiment."""
    origin, target = (f"sqlite:///{tmp_path / name}.db" for name in ("origin", "target"))
    traces = [*recorded.load_traces().values(), make_trace("own", experiment="shop")]
    for trace in traces:
        trace.info.trace_metadata.setdefault("mlflow.trace_schema.version", "3")
    traces[-1].data.spans[0].inputs = {"deep": [1, 2.5, None, {"é": True}]}
    store = open_store(origin)
    store.write(traces)
    store.close()
    with TraceClient(origin) as client:
        there = [trace.to_dict() for trace in client.search_traces(max_results=1000)]
    assert copied(origin, target) == there
    assert len(there) == len(traces)
