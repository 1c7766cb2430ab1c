"""MLflow as an app has it: its client in this process, a real server, an experiment of the test's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import httpx
import mlflow
import pytest
from mlflow.entities import Trace as MLflowTrace

from wherefrom import MemorySink, Settings, Trace, TraceMiddleware
from wherefrom.mlflow import MLflowBridge
from wherefrom.process import process

from .server import MLflowServer

_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


class Tracking:
    """An experiment, and the traces that came of it on either side."""

    def __init__(self, server: MLflowServer, experiment_id: str) -> None:
        self.server = server
        self.experiment_id = experiment_id
        self.sink = MemorySink()

    def traced(self, app: Any, **options: Any) -> TraceMiddleware:
        own = {name: options.pop(name) for name in ("on_request", "on_response") if name in options}
        bridges = options.pop("bridges", None) or [MLflowBridge()]
        settings = Settings(store="none", **options)
        return TraceMiddleware(app, sink=self.sink, settings=settings, bridges=bridges, **own)

    @property
    def ours(self) -> Trace:
        """The one trace that we have recorded."""
        (trace,) = self.sink.traces
        return trace

    @cached_property
    def theirs(self) -> MLflowTrace:
        """The one trace that the server has, as MLflow's client reads it."""
        (trace,) = self.all_of_theirs()
        return trace

    def all_of_theirs(self) -> list[MLflowTrace]:
        """Every trace that the server has, spans or none."""
        mlflow.flush_trace_async_logging()
        ids = self.server.traces(self.experiment_id)
        found = [mlflow.get_trace(trace_id) for trace_id in ids]
        return [trace for trace in found if trace is not None]


@contextmanager
def tracking(server: MLflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracking]:
    """MLflow's client set up for this block, and left as if it had never been."""
    for name in _VARIABLES:
        monkeypatch.setenv(name, "")  # MLflow writes them, and the test's end takes that back
        monkeypatch.delenv(name)
    experiment_id = server.new_experiment(f"test-{uuid.uuid4().hex}")
    mlflow.set_tracking_uri(server.url)
    mlflow.set_experiment(experiment_id=experiment_id)
    try:
        yield Tracking(server, experiment_id)
    finally:
        process.bridges = ()
        mlflow.flush_trace_async_logging(terminate=True)
        monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
        mlflow.set_tracking_uri("http://127.0.0.1:9")  # this resets the provider too
        mlflow.tracing.reset()  # type: ignore[no-untyped-call]


def tree_of(trace: Trace | MLflowTrace) -> dict[str, str | None]:
    """Each span with its parent's name; the same for a trace of either kind."""
    spans: list[Any] = list(trace.data.spans)
    names = {span.span_id: span.name for span in spans}
    return {span.name: names.get(span.parent_id or "") for span in spans}


def named(trace: Any, name: str) -> Any:
    """The span of that name."""
    (span,) = (span for span in trace.data.spans if span.name == name)
    return span


async def get(app: Any, path: str = "/", **headers: str) -> httpx.Response:
    """One request; what the app raises is a 500."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(
            path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
