"""What MLflow has no public name for: what the bridge needs of it is still there, and does what it did."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from mlflow.entities.trace_location import MlflowExperimentLocation

import wherefrom
from wherefrom import MemorySink, Settings
from wherefrom.mlflow import convert, private
from wherefrom.mlflow.private import GivenIds, ids, install
from wherefrom.model import Source
from wherefrom.tracing.recorder import Recorder

from ..integrations.conftest import outside  # noqa: F401 - a fixture
from .server import free_port

FOLDER = Path(wherefrom.__file__).parent / "integrations" / "mlflow"
PUBLIC = {"mlflow", "mlflow.entities", "mlflow.tracing"}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An MLflow that sends to nobody, and is as new."""
    for name, value in {
        "MLFLOW_TRACKING_URI": "",
        "MLFLOW_EXPERIMENT_ID": "",
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }.items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
    yield
    mlflow.tracing.reset()  # type: ignore[no-untyped-call]


def test_one_module_knows_them() -> None:
    """Everywhere else the bridge speaks to MLflow by its documented names."""
    for path in FOLDER.glob("*.py"):
        if path.stem == "private":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ImportFrom)
                and not node.level
                and (node.module or "").startswith("mlflow")
            ):
                assert node.module in PUBLIC, path
            if isinstance(node, ast.Import):
                assert all(a.name in PUBLIC for a in node.names if a.name.startswith("mlflow")), path


def test_a_span_is_made_current_and_put_back() -> None:
    """Children find it; with nothing current, the next is a root."""
    outer = mlflow.start_span_no_context("outer", experiment_id="0")
    assert private.is_recorded(outer)
    token = private.activate(outer)
    assert mlflow.get_active_trace_id() == outer.trace_id
    inner = mlflow.start_span_no_context("inner")
    assert inner.parent_id == outer.span_id
    blank = private.activate(private.nothing())
    assert mlflow.get_current_active_span() is None
    other = mlflow.start_span_no_context("other", experiment_id="0")
    assert (other.parent_id, other.trace_id == outer.trace_id) == (None, False)
    private.deactivate(blank)
    found = private.current()
    assert found is not None
    assert f"{found.get_span_context().span_id:016x}" == outer.span_id
    private.deactivate(token)
    assert mlflow.get_active_trace_id() is None
    held = private.activate(private.holding(found))
    assert mlflow.get_active_trace_id() == outer.trace_id
    private.deactivate(held)


def test_what_is_said_of_a_trace_is_read_and_written() -> None:
    """Until it is sent; then MLflow has let it go."""
    span = mlflow.start_span_no_context("root", experiment_id="0")
    token = private.activate(span)
    mlflow.update_current_trace(metadata={"k": "v"})
    private.deactivate(token)
    with private.info_of(span.trace_id) as info:
        assert info is not None
        assert info.trace_metadata["k"] == "v"
    assert private.find(span.trace_id, span.span_id) is span
    private.rename(span, "renamed")
    assert span.name == "renamed"
    span.end()
    with private.info_of(span.trace_id) as info:
        assert info is None
    assert private.find(span.trace_id, span.span_id) is None


def test_ids_are_given_to_its_own_tracer() -> None:
    """Inside the block, and only there."""
    provider = mlflow.tracing.get_bridged_tracer_provider()
    install(provider, private.TRACER)
    install(provider, private.TRACER)
    assert isinstance(provider.id_generator, GivenIds)
    assert provider.id_generator.is_trace_id_random()
    with ids(f"tr-{1:032x}", f"{2:016x}"):
        root = mlflow.start_span_no_context("root", experiment_id="0")
    with ids(None, f"{3:016x}"):
        child = mlflow.start_span_no_context("child", parent_span=root)
        other = mlflow.start_span_no_context("other", experiment_id="0")
    assert (root.trace_id, root.span_id) == (f"tr-{1:032x}", f"{2:016x}")
    assert (child.trace_id, child.span_id) == (f"tr-{1:032x}", f"{3:016x}")
    assert (other.trace_id != root.trace_id, other.span_id) == (True, f"{3:016x}")
    assert mlflow.start_span_no_context("free", experiment_id="0").span_id not in {
        child.span_id,
        root.span_id,
    }


def test_whether_it_would_ask_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when the app has chosen a destination or an experiment."""
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    assert not private.knows_its_experiment()
    mlflow.tracing.set_destination(MlflowExperimentLocation("7"))
    assert private.knows_its_experiment()
    mlflow.tracing.reset()  # type: ignore[no-untyped-call]
    assert not private.knows_its_experiment()
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", "7")
    assert private.knows_its_experiment()


def test_an_experiment_that_another_process_makes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers start at once: the slower one takes what the quicker has made, or says what went wrong."""
    answers: list[Any] = [None, SimpleNamespace(experiment_id="7"), None, None]

    class Client:
        def __init__(self, uri: str) -> None:
            pass

        def get_experiment_by_name(self, name: str) -> Any:
            return answers.pop(0)

        def create_experiment(self, name: str) -> str:
            raise mlflow.MlflowException("RESOURCE_ALREADY_EXISTS")

    monkeypatch.setattr(private, "TrackingServiceClient", Client)
    assert private.experiment_id("chat") == "7"
    with pytest.raises(mlflow.MlflowException, match="RESOURCE_ALREADY_EXISTS"):
        private.experiment_id("chat")


def test_what_is_no_json_is_text() -> None:
    """MLflow writes its attributes as JSON; libraries may set others, past it."""
    trace = Recorder(Settings(store="none"), Source({}), MemorySink()).start("root")
    span = trace.start_span("ours")
    span.set_status("ERROR", "ours")
    theirs: Any = mlflow.start_span_no_context("theirs", experiment_id="0")
    theirs._span.set_attributes({"plain": "text", "number": 1, "list": [1, 2]})
    theirs.set_attributes({"nan": float("nan"), "data": {"a": [1]}})
    convert.read_mlflow_span(span, theirs._span)
    found = {key: span.attributes[key] for key in ("plain", "number", "list", "nan", "data")}
    assert found == {"plain": "text", "number": 1, "list": [1, 2], "nan": "NaN", "data": {"a": [1]}}
    assert (span.name, span.status.description) == ("theirs", "ours")


def test_without_mlflow() -> None:
    """One sentence, naming the extra."""
    script = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from wherefrom import Settings, TraceMiddleware\n"
        "TraceMiddleware(None, settings=Settings(store='none', bridges='mlflow'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    expected = "wherefrom.mlflow needs an optional dependency: pip install 'wherefrom[mlflow]'"
    assert done.stderr.strip().endswith(f"MissingExtraError: {expected}")
