"""What most tests need: an empty ledger, a sink that keeps, and a finished trace."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

from wherefrom import MemorySink, Span, SpanType, Trace, TraceInfo, TraceState
from wherefrom._ids import new_ids
from wherefrom.model import OK, TraceData
from wherefrom.process import ledger

from .mlflow.server import MISSING, MLflowServer, mlflow_python, running_server

# What a shell starts in the background ignores Ctrl-C, and so would all that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A busy machine is no failure.
settings.register_profile("wherefrom", deadline=None)
settings.load_profile("wherefrom")

MakeTrace = Callable[..., Trace]


@pytest.fixture(autouse=True)
def _empty_ledger() -> None:
    ledger.reset()


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def make_trace() -> MakeTrace:
    """Makes a finished trace of one root span; keywords are fields of its info."""

    def make(name: str = "GET /", **info: Any) -> Trace:
        started = info.setdefault("request_time", 1_700_000_000_000)
        trace_id, span_id = new_ids(started)
        trace_id = info.pop("trace_id", trace_id)
        root = Span(trace_id, span_id, None, name, SpanType.SERVER, started * 1_000_000)
        root.end_time_ns, root.status = root.start_time_ns + 5_000_000, OK
        defaults = {"execution_duration": 5, "state": TraceState.OK, "tags": {"mlflow.traceName": name}}
        return Trace(TraceInfo(trace_id, **{**defaults, **info}), TraceData([root]))

    return make


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """A real MLflow server that all tests share: each makes an experiment of its own in it."""
    python = mlflow_python()
    if python is None:
        pytest.skip(MISSING)
    with running_server(python, tmp_path_factory.mktemp("mlflow")) as server:
        yield server
