"""Traces to MLflow's own server and back, by the command line."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wherefrom import Span, SpanEvent, SpanStatus, Trace, TraceState
from wherefrom.client import TraceClient
from wherefrom.model import SpanStatusCode, TraceData

from ..mlflow.server import MLflowServer, clean_environment, free_port
from .conftest import make_exception, make_span, make_trace, run

Write = Callable[..., None]


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def other(tmp_path: Path) -> str:
    """The URL of a second store."""
    return f"sqlite:///{tmp_path}/other.db"


@pytest.fixture
def unique_ids(request: pytest.FixtureRequest) -> Callable[[Trace], Trace]:
    """Gives a trace an id of this test's own: the server is shared, and keeps one trace an id."""
    prefix = f"{abs(hash(request.node.nodeid)) % 16**12:012x}"

    def change(trace: Trace) -> Trace:
        trace_id = f"tr-{prefix}{trace.info.trace_id[3:7]:0<20}"
        trace.info.trace_id = trace_id
        for span in trace.data.spans:
            span.trace_id = trace_id
        return trace

    return change


UniqueIds = Callable[[Trace], Trace]


def target(server: MLflowServer, experiment: str) -> str:
    return f"mlflow+{server.url}?experiment={experiment}"


def stored(url: str | None = None) -> dict[str, Trace]:
    """The traces in a store, by id."""
    with TraceClient(url) as client:
        return {trace.info.trace_id: trace for trace in client.search_traces(max_results=5000)}


def rich_trace(number: int, experiment: str, **changes: Any) -> Trace:
    """A chat request with everything that a trace can hold."""
    root_span = make_span("root", None, 0, 120, name="POST /chat", span_type="SERVER")
    root_span.inputs = {"question": "é?", "nothing": None, "deep": [{"a": [1, 2.5, True, {}, []]}]}
    root_span.outputs = "text, and no object"
    root_span.attributes = {"http.response.status_code": 200, "ratio": 1.0, "none": None, "": "no key"}
    root_span.links = [
        {
            "trace_id": "tr-0af7651916cd43dd8448eb211c80319c",
            "span_id": "b9c7c989f97918e1",
            "attributes": {"kind": "caller"},
        }
    ]
    model = make_span("model", "root", 10, 90, span_type="CHAT_MODEL")
    model.attributes = {"temperature": 0.25, "stop": ["a", "b"], "n": -3, "big": 2**53 + 1, "nul": "a\0b"}
    model.status = SpanStatus(SpanStatusCode.ERROR, "TimeoutError: slow 🐌")
    model.events = [
        SpanEvent("first token", model.start_time_ns + 7, {"n": 1, "list": [1, None], "map": {"k": "v"}}),
        make_exception("TimeoutError", "slow 🐌", "Traceback…", model.start_time_ns + 9),
    ]
    plain = make_span("plain", "model", 20, 21)
    plain.status = SpanStatus()
    fields: dict[str, Any] = {
        "experiment": experiment,
        "request_preview": '{"question": "é?"}',
        "response_preview": "text, and no object",
        "metadata": {
            "mlflow.source.git.commit": "c0ffee",
            "mlflow.trace.tokenUsage": '{"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}',
            "feature_flag_new": "true",
            "odd key\n€": " spaces and 🎉 ",
            "empty": "",
        },
        "tags": {"mlflow.traceName": "POST /chat", "team": "search"},
        "spans": [root_span, model, plain],
    }
    return make_trace(number, **fields | changes)


class TestRoundTrip:
    def test_every_field_comes_back(
        self, write: Write, other: str, mlflow_server: MLflowServer, experiment: str, unique_ids: UniqueIds
    ) -> None:
        """To MLflow and back, a trace is equal, field by field."""
        traces = [
            rich_trace(1, experiment),
            rich_trace(2, experiment, state=TraceState.ERROR, client_request_id=None),
            rich_trace(3, experiment, state=TraceState.IN_PROGRESS, request_preview="p", tags={}),
            make_trace(4, experiment=experiment, spans=[], client_request_id="r" * 300),
            make_trace(5, experiment=experiment, execution_duration=0, name="GET /\\'\""),
        ]
        write(*map(unique_ids, traces))
        sent = run("export", "--to", target(mlflow_server, experiment))
        assert (sent.code, sent.out) == (0, "")
        assert sent.err.startswith(f"5 traces to mlflow+{mlflow_server.url}")
        back = run("import", "mlflow", mlflow_server.url, "--experiment", experiment, "--store", other)
        assert (back.code, back.out) == (0, "")
        assert back.err == f"5 traces from {mlflow_server.url}.\n"
        assert stored(other) == stored()

    def test_what_mlflow_s_limits_change(
        self, write: Write, other: str, mlflow_server: MLflowServer, experiment: str, unique_ids: UniqueIds
    ) -> None:
        """These are the differences, as the README lists them, and there are no others."""
        long = {"long": "v" * 300, "k" * 260: "w", "mlflow.traceInputs": "i" * 300}
        trace = unique_ids(rich_trace(1, experiment, metadata=long, tags={"t": "x" * 5000}))
        root, _model, plain = trace.data.spans
        root.attributes = {"huge": 2**70, "json": '{"a": 1}', "number": "1", "list": "[1]"}
        root.status = SpanStatus(SpanStatusCode.OK, "as it should be")
        plain.end_time_ns = None
        write(trace)
        assert run("export", "--to", target(mlflow_server, experiment)).code == 0
        assert (
            run("import", "mlflow", mlflow_server.url, "--experiment", experiment, "--store", other).code == 0
        )
        (kept,) = stored().values()
        (back,) = stored(other).values()
        expected = kept.info.trace_metadata | {
            "long": "v" * 250,
            "k" * 250: "w",
            "mlflow.traceInputs": "i" * 247 + "...",
        }
        del expected["k" * 260]
        assert back.info == replace(kept.info, trace_metadata=expected, tags={"t": "x" * 4096})
        changed = {"huge": str(2**70), "json": {"a": 1}, "number": "1", "list": [1]}
        status = SpanStatus(SpanStatusCode.OK)
        assert back.data.spans[0] == replace(kept.data.spans[0], attributes=changed, status=status)
        assert back.data.spans[1:] == kept.data.spans[1:2]

    def test_what_was_cut_there_stays_whole_here(
        self, write: Write, mlflow_server: MLflowServer, experiment: str, unique_ids: UniqueIds
    ) -> None:
        """To take traces back into the store that they came from costs nothing of them."""
        write(unique_ids(rich_trace(1, experiment, metadata={"long": "v" * 5000, "k" * 250: "w" * 300})))
        before = stored()
        assert run("export", "--to", target(mlflow_server, experiment)).code == 0
        back = run("import", "mlflow", mlflow_server.url, "--experiment", experiment)
        assert back.err == f"0 traces, 1 already there from {mlflow_server.url}.\n"
        assert stored() == before


class TestAgain:
    def test_importing_twice_changes_nothing(
        self, write: Write, other: str, mlflow_server: MLflowServer, experiment: str, unique_ids: UniqueIds
    ) -> None:
        write(*(unique_ids(rich_trace(number, experiment)) for number in range(120)))
        assert run("export", "--to", target(mlflow_server, experiment)).code == 0
        command = ("import", "mlflow", mlflow_server.url, "--experiment", experiment, "--store", other)
        assert run(*command).err == f"120 traces from {mlflow_server.url}.\n"
        before = stored(other)
        assert run(*command).err == f"0 traces, 120 already there from {mlflow_server.url}.\n"
        assert stored(other) == before
        assert before == stored()

    def test_an_export_goes_on_where_it_broke_off(
        self, write: Write, mlflow_server: MLflowServer, experiment: str, unique_ids: UniqueIds
    ) -> None:
        """What the server has whole is not sent again; a span, a tag or an experiment that differs is."""
        traces = [unique_ids(rich_trace(number, experiment)) for number in range(4)]
        write(*traces[:3])
        command = ("export", "--to", target(mlflow_server, experiment))
        assert run(*command).err.startswith("3 traces to")
        write(traces[3])
        late = make_span("late", "root", 500, 600, trace_id=traces[0].info.trace_id)
        write(Trace(traces[0].info, TraceData([late])))
        with TraceClient() as client:
            client.set_trace_tag(traces[1].info.trace_id, "reviewed", "yes")
        assert run(*command).err.startswith("3 traces, 1 already there to")
        assert run(*command).err.startswith("0 traces, 4 already there to")
        found = mlflow_server.traces(mlflow_server.experiment(experiment))
        assert found[traces[1].info.trace_id]["tags"]["reviewed"] == "yes"
        assert found[traces[0].info.trace_id]["execution_duration"] == "0.120s"
        assert len(mlflow_server.spans(traces[0].info.trace_id)) == 4
        moved = run("export", "--to", target(mlflow_server, experiment + "-2"))
        assert moved.err.startswith("4 traces to")

    def test_what_changed_on_the_server_is_taken_and_what_was_edited_here_stays(
        self, write: Write, other: str, mlflow_server: MLflowServer, experiment: str, unique_ids: UniqueIds
    ) -> None:
        trace = unique_ids(rich_trace(1, experiment))
        write(trace)
        assert run("export", "--to", target(mlflow_server, experiment)).code == 0
        command = ("import", "mlflow", mlflow_server.url, "--experiment", experiment, "--store", other)
        assert run(*command).code == 0
        trace_id = trace.info.trace_id
        with TraceClient(other) as client:
            client.set_trace_tag(trace_id, "team", "ours")
        for key, value in (("team", "theirs"), ("new", "tag")):
            patch(mlflow_server, trace_id, key, value)
        assert run(*command).err.startswith("1 trace from")
        tags = stored(other)[trace_id].info.tags
        assert (tags["team"], tags["new"]) == ("ours", "tag")


def patch(server: MLflowServer, trace_id: str, key: str, value: str) -> None:
    """Set a tag on the server."""
    request = urllib.request.Request(
        f"{server.url}/api/3.0/mlflow/traces/{trace_id}/tags",
        json.dumps({"key": key, "value": value}).encode(),
        {"content-type": "application/json"},
        method="PATCH",
    )
    urllib.request.urlopen(request, timeout=30).close()


RECORD = """
import sys
import mlflow
from mlflow.entities import AssessmentSource, Feedback

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment(sys.argv[2])


@mlflow.trace(span_type="TOOL", attributes={"k": [1, None]})
def fetch(a, b=None):
    return {"a": a, "b": b}


@mlflow.trace
def fails():
    raise ValueError("no 🐌")


fetch(1)
with mlflow.start_span("parent") as parent:
    parent.set_inputs({"x": None})
    fetch({"deep": [1, 2.5]})
    mlflow.update_current_trace(tags={"t": "v"}, metadata={"m": "w"}, session_id="s", user="u")
try:
    fails()
except ValueError:
    pass
mlflow.flush_trace_async_logging()
last = mlflow.get_last_active_trace_id()
mlflow.log_assessment(last, Feedback(name="good", value=True, source=AssessmentSource("HUMAN", "ada")))
"""


class TestFromMLflow:
    def test_what_mlflow_recorded_itself(
        self, mlflow_server: MLflowServer, experiment: str, tmp_path: Path
    ) -> None:
        """Without request ids, with nulls, exceptions and feedback."""
        script = tmp_path / "record.py"
        script.write_text(RECORD)
        subprocess.run(
            [mlflow_server.python, str(script), mlflow_server.url, experiment],
            env=clean_environment(),
            check=True,
            capture_output=True,
            cwd=tmp_path,
        )
        result = run("import", "mlflow", mlflow_server.url, "--experiment", experiment)
        assert (result.code, result.err) == (0, f"3 traces from {mlflow_server.url}.\n")
        traces = {trace.info.name: trace for trace in stored().values()}
        assert traces.keys() == {"fetch", "parent", "fails"}
        assert {trace.info.client_request_id for trace in traces.values()} == {None}
        assert {trace.info.experiment for trace in traces.values()} == {experiment}
        parent = traces["parent"]
        assert (parent.info.tags["t"], parent.info.trace_metadata["m"]) == ("v", "w")
        assert parent.info.trace_metadata["mlflow.trace.session"] == "s"
        root, child = parent.data.spans
        assert (child.parent_id, child.span_type) == (root.span_id, "TOOL")
        assert child.inputs == {"a": {"deep": [1, 2.5]}, "b": None}
        assert child.outputs == {"a": {"deep": [1, 2.5]}, "b": None}
        assert child.attributes["k"] == [1, None]
        failed = traces["fails"]
        assert failed.info.state is TraceState.ERROR
        (good,) = failed.info.assessments
        assert (good.name, good.value, good.source.source_id) == ("good", True, "ada")
        with TraceClient() as client:
            client.log_feedback(failed.info.trace_id, "ours", 1)
        assert run("import", "mlflow", mlflow_server.url, "--experiment", experiment).code == 0
        kept = stored()[failed.info.trace_id].info.assessments
        assert [one.name for one in kept] == ["good", "ours"]
        assert failed.data.spans[0].events[0].attributes["exception.message"] == "no 🐌"

    def test_old_traces_and_broken_ones(
        self, mlflow_server: MLflowServer, experiment: str, unique_ids: UniqueIds
    ) -> None:
        """MLflow 2 stored spans in a file; one that cannot be read is reported, the others are imported."""
        place = mlflow_server.new_experiment(experiment)
        traces = [unique_ids(make_trace(number, experiment=experiment)) for number in range(5)]
        files: list[Any] = [
            {"spans": [span.to_dict() for span in traces[0].data.spans]},
            {"spans": [as_in_mlflow_2(traces[1].data.spans[0])]},
            "no json {",
            {"spans": [{"name": "without ids"}]},
            None,
        ]
        for trace, content in zip(traces, files, strict=True):
            folder = told(mlflow_server, trace, place)
            if content is not None:
                folder.mkdir(parents=True)
                text = content if isinstance(content, str) else json.dumps(content)
                (folder / "traces.json").write_text(text)
        result = run("import", "mlflow", mlflow_server.url, "--experiment", experiment)
        assert result.code == 1
        assert result.err.startswith(f"3 traces from {mlflow_server.url}.\n2 traces could not be moved:\n")
        assert all(trace.info.trace_id in result.err for trace in traces[2:4])
        found = stored()
        assert found.keys() == {trace.info.trace_id for trace in (traces[0], traces[1], traces[4])}
        assert found[traces[0].info.trace_id].data == traces[0].data
        assert found[traces[1].info.trace_id].data == traces[1].data
        assert found[traces[4].info.trace_id].data.spans == []

    def test_all_experiments_are_taken_when_none_is_named(
        self, write: Write, other: str, mlflow_server: MLflowServer, experiment: str, unique_ids: UniqueIds
    ) -> None:
        """And MLflow's ``Default`` is our ``default``."""
        moment = 1_780_000_000_000
        names = (experiment, "default")
        traces = [
            unique_ids(make_trace(number, experiment=name, request_time=moment))
            for number, name in enumerate(names)
        ]
        write(*traces)
        assert run("export", "--to", f"mlflow+{mlflow_server.url}").code == 0
        assert traces[1].info.trace_id in mlflow_server.traces("0")
        where = f"timestamp_ms = {moment}"
        result = run("import", "mlflow", mlflow_server.url, "--where", where, "--store", other)
        assert result.code == 0
        found = stored(other)
        for trace in traces:
            assert found[trace.info.trace_id].info.experiment == trace.info.experiment


def as_in_mlflow_2(span: Span) -> dict[str, Any]:
    """A span in the form of MLflow 2."""
    now = span.to_dict()
    return {
        "name": span.name,
        "context": {"trace_id": f"0x{span.trace_id[3:]}", "span_id": f"0x{span.span_id}"},
        "parent_id": None,
        "start_time": span.start_time_ns,
        "end_time": span.end_time_ns,
        "status_code": "OK",
        "status_message": "",
        "attributes": now["attributes"],
        "events": [],
    }


def told(server: MLflowServer, trace: Trace, experiment_id: str) -> Path:
    """Tell the server of a trace alone; the folder in which MLflow 2 would have kept its spans."""
    info = trace.info.to_dict()
    info["trace_location"]["mlflow_experiment"]["experiment_id"] = experiment_id
    del info["execution_duration_ms"]
    answer = server.call("3.0/mlflow/traces", {"trace": {"trace_info": info}})
    return Path(answer["trace"]["trace_info"]["tags"]["mlflow.artifactLocation"])


class TestWords:
    def test_an_experiment_that_is_not_there(self, mlflow_server: MLflowServer) -> None:
        result = run("import", "mlflow", mlflow_server.url, "--experiment", "nowhere")
        assert result.code == 1
        assert result.err.startswith("wherefrom: the server has no experiment 'nowhere'; it has ")

    def test_a_filter_that_the_server_does_not_understand(self, mlflow_server: MLflowServer) -> None:
        result = run("import", "mlflow", mlflow_server.url, "--where", "nonsense = 1")
        assert result.code == 1
        assert "answered 400: Invalid attribute key 'nonsense'" in result.err

    def test_no_server(self, monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
        """A wrong address is reported at once, without its secrets."""
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert (
            "no server to import from: give its URL, or set MLFLOW_TRACKING_URI"
            in run("import", "mlflow").err
        )
        write(make_trace(1))
        url = f"http://ada:secret@127.0.0.1:{free_port()}"
        for result in (run("import", "mlflow", url), run("export", "--to", f"mlflow+{url}")):
            assert result.code == 1
            assert "ConnectionRefusedError" in result.err
            assert "secret" not in result.err

    def test_what_is_sent_goes_to_no_file(self, tmp_path: Path) -> None:
        result = run("export", "--to", "mlflow+http://h", "--output", str(tmp_path / "x.csv"))
        assert result.code == 2
        assert "a server takes no output file" in " ".join(result.err.split())

    def test_another_file_is_left_alone(self, tmp_path: Path, mlflow_server: MLflowServer) -> None:
        path = tmp_path / "else.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE t (x)")
        connection.close()
        result = run("import", "mlflow", mlflow_server.url, "--store", f"sqlite:///{path}")
        assert result.code == 1
        assert "but not a store of Wherefrom" in result.err
