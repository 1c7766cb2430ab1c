"""MLflow's own client, unchanged, reads a store through ``wherefrom serve``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from wherefrom import Settings, Span, SpanEvent, SpanStatus, Trace, TraceMiddleware, trace
from wherefrom.model import Source, SpanStatusCode, TraceState
from wherefrom.stores import open_store

from ...query import recorded
from ..server import MISSING, mlflow_python
from .conftest import MLflowClient, reading, serving

pytestmark = pytest.mark.skipif(mlflow_python() is None, reason=MISSING)

MakeTrace = Callable[..., Trace]
MS = 1_000_000


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('served') / 'wherefrom.db'}"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[MLflowClient]:
    """Reads the traces that MLflow's answers were recorded on, and what a test writes besides."""
    store = open_store(url)
    store.write(list(recorded.load_traces().values()))
    store.close()
    with serving(url) as address, reading(address) as client:
        yield client


@pytest.fixture
def write(url: str, client: MLflowClient) -> Callable[..., None]:
    def _write(*traces: Trace) -> None:
        store = open_store(url)
        store.write(traces)
        store.close()

    return _write


def experiment_id(client: MLflowClient, name: str) -> str:
    return str(client.found("get_experiment_by_name", name=name)["id"])


def infos(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [trace["info"] for trace in found["items"]]


def test_a_trace_arrives_whole(
    client: MLflowClient, write: Callable[..., None], make_trace: MakeTrace
) -> None:
    """Info and spans are those of the store, in the names that code written for MLflow uses."""
    trace = whole(make_trace)
    write(trace)
    info = trace.info
    assert client.found("info_of", trace_id=info.trace_id) == {
        "trace_id": info.trace_id,
        "experiment_id": experiment_id(client, "whole"),
        "client_request_id": "req-é",
        "request_time": 1_700_000_000_007,
        "execution_duration": 186,
        "state": "OK",
        "status": "OK",
        "request_preview": "question?",
        "response_preview": "",
        "trace_metadata": info.trace_metadata | {"mlflow.trace_schema.version": "3"},
        "tags": info.tags | {"mlflow.trace.spansLocation": "TRACKING_STORE"},
    }
    root, child = trace.data.spans
    assert client.found("spans_of", trace_id=trace.info.trace_id) == [
        {
            "trace_id": trace.info.trace_id,
            "span_id": span.span_id,
            "parent_id": span.parent_id,
            "name": span.name,
            "span_type": span.span_type,
            "start_time_ns": span.start_time_ns,
            "end_time_ns": span.end_time_ns,
            "status": [span.status.code.value, span.status.description],
            "inputs": span.inputs,
            "outputs": span.outputs,
            "attributes": span.attributes,
            "events": [[event.name, event.timestamp, event.attributes] for event in span.events],
            "links": [["tr-" + "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", {"kind": "caller"}]]
            if span is root
            else [],
        }
        for span in (root, child)
    ]


def whole(make_trace: MakeTrace) -> Trace:
    source = Source({"app_version": "1.4", "mlflow.source.type": "production"})
    trace = make_trace(
        "POST /chat/{room}",
        experiment="whole",
        request_time=1_700_000_000_007,
        execution_duration=186,
        client_request_id="req-é",
        request_preview="question?",
        response_preview="",
        trace_metadata={**source, "mlflow.trace.session": "s", "mlflow.trace.user": "", "long": "é" * 9000},
        source=source,
        tags={"mlflow.traceName": "POST /chat/{room}", "team": "x" * 8000},
    )
    root = trace.data.spans[0]
    root.inputs = {"question": "é?", "deep": [[1, 2.5, None, True, {"a": []}], {}], "big": 2**63 - 1}
    root.outputs = "text"
    root.attributes = {"k": 1, "f": 0.1, "n": None, "flag": False, "empty": "", "list": [], "map": {"": "\0"}}
    root.links = [
        {
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "span_id": "b7ad6b7169203331",
            "attributes": {"kind": "caller"},
        }
    ]
    child = Span(trace.info.trace_id, "00f067aa0ba902b7", root.span_id, "model 🙂", "CHAT_MODEL")
    child.start_time_ns, child.end_time_ns = root.start_time_ns + MS, root.start_time_ns + 3 * MS
    child.status = SpanStatus(SpanStatusCode.ERROR, "ValueError: no")
    child.events = [SpanEvent("exception", child.start_time_ns + 1, {"exception.type": "ValueError", "n": 1})]
    trace.data.spans.append(child)
    return trace


async def test_what_the_middleware_records(client: MLflowClient, url: str) -> None:
    """From a request to MLflow's client: route, user, exception and its place."""

    @trace(span_type="TOOL")
    def look_up(item: int) -> int:
        raise ValueError(f"no {item}")

    app = FastAPI()

    @app.get("/items/{item}")
    def read(item: int) -> int:
        return look_up(item)

    store = open_store(url)
    app.add_middleware(TraceMiddleware, sink=store, settings=Settings(experiment="recorded"))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as browser:
        headers = {"x-request-id": "req-7", "x-session-id": "s-7", "x-user-id": "ada"}
        assert (await browser.get("/items/7", headers=headers)).status_code == 500
    store.close()
    location = experiment_id(client, "recorded")
    asked = "client_request_id = 'req-7' AND span.name = 'look_up'"
    (found,) = client.found("search_traces", locations=[location], filter_string=asked)["items"]
    info = client.found("info_of", trace_id=found["info"]["trace_id"])
    assert (info["state"], info["tags"]["mlflow.traceName"]) == ("ERROR", "GET /items/{item}")
    assert info["trace_metadata"]["mlflow.trace.session"] == "s-7"
    assert info["trace_metadata"]["mlflow.trace.user"] == "ada"
    root, tool = client.found("spans_of", trace_id=info["trace_id"])
    assert (root["span_type"], root["parent_id"]) == ("SERVER", None)
    assert root["attributes"]["http.response.status_code"] == 500
    assert (tool["span_type"], tool["parent_id"]) == ("TOOL", root["span_id"])
    assert tool["inputs"] == {"item": 7}
    assert tool["status"] == ["ERROR", "ValueError: no 7"]
    assert tool["events"][0][0] == "exception"
    assert tool["events"][0][2]["exception.message"] == "no 7"


def test_an_odd_trace_does_not_cost_its_page(
    client: MLflowClient, write: Callable[..., None], make_trace: MakeTrace
) -> None:
    """Ids, times and values that MLflow never makes, as an import may bring them."""
    odd, plain = make_trace(experiment="odd", trace_id="tr-imported"), make_trace(experiment="odd")
    root = odd.data.spans[0]
    root.trace_id, root.span_id, root.start_time_ns, root.end_time_ns = "tr-imported", "x" * 40, -5, None
    deep: Any = 2**64 - 1
    for _ in range(100):
        deep = {"k": [deep]}
    root.inputs, root.attributes = deep, {"": None, "\0": "\0", "big": 2**63}
    root.links = [{}]
    root.events = [SpanEvent("", -1, {"nested": [{"k": None}]})]
    odd.data.spans.append(Span("tr-imported", "", "", "", "", 0, 0))
    odd.info.request_time, odd.info.execution_duration = 10**17, -1
    write(odd, plain)
    location = experiment_id(client, "odd")
    found = client.found("search_traces", locations=[location])["items"]
    assert [trace["info"]["trace_id"] for trace in found] == ["tr-imported", plain.info.trace_id]
    assert [len(trace["data"]["spans"]) for trace in found] == [2, 1]
    assert len(client.found("mlflow.search_traces", locations=[location])["rows"]) == 2


def test_the_functions_of_mlflows_guide(
    client: MLflowClient, write: Callable[..., None], make_trace: MakeTrace
) -> None:
    """Error rates by version, latency by flag: the guide's calls, as they stand there."""
    for number in range(20):
        version, flag = ("1.0.0", "true") if number < 10 else ("1.1.0", "false")
        metadata = {"mlflow.source.type": "production", "app_version": version, "feature_flag_new": flag}
        state = TraceState.ERROR if number in {0, 10, 11} else TraceState.OK
        write(
            make_trace(
                experiment="guide", trace_metadata=metadata, state=state, execution_duration=100 + number
            )
        )
    write(make_trace(experiment="guide", trace_metadata={"app_version": "1.0.0"}, state=TraceState.ERROR))
    experiment = experiment_id(client, "guide")
    rates = client.found("error_rates", experiment=experiment, versions=["1.0.0", "1.1.0", "2.0.0"])
    assert rates == {"1.0.0": 10.0, "1.1.0": 20.0, "2.0.0": None}
    averages = client.found("latency_by_flag", experiment=experiment, flag="new")
    assert averages == {"treatment": 104.5, "control": 114.5}


def test_recorded_filters(client: MLflowClient) -> None:
    """Through the client, matches and errors are those that a server of MLflow gave."""
    cases = [case for case in recorded.measured_filters() if case.get("locations", ["main"]) == ["main"]]
    assert len(cases) > 200
    assert not differing(client, "filter_string", [case | {"asked": case["filter"]} for case in cases])


def test_recorded_orders(client: MLflowClient) -> None:
    """The order is that of MLflow, or the error."""
    cases = recorded.load("ordering")["order_by"]
    assert len(cases) > 30
    assert not differing(client, "order_by", [case | {"asked": case["order_by"]} for case in cases])


def differing(client: MLflowClient, parameter: str, cases: list[dict[str, Any]]) -> list[Any]:
    """Recorded cases that are answered otherwise here: what was asked, the answer, and MLflow's."""
    aliases = {alias: trace.info.trace_id for alias, trace in recorded.load_traces().items()}
    searches = [{parameter: case["asked"]} for case in cases]
    answers = client.found("search_all", searches=searches, locations=[experiment_id(client, "main")])
    wanted = [
        {"error": "INVALID_PARAMETER_VALUE"}
        if "error" in case
        else [aliases[alias] for alias in case["match"]]
        for case in cases
    ]
    return [
        (case["asked"], answer, want)
        for case, answer, want in zip(cases, answers, wanted, strict=True)
        if answer != want
    ]


def test_pages(client: MLflowClient) -> None:
    """A page has its token and an order, with spans or without."""
    location = experiment_id(client, "main")
    arguments = {"locations": [location], "order_by": ["timestamp_ms ASC"], "max_results": 25}
    seen: list[str] = []
    token = None
    for include_spans in (True, False, True):
        page = client.found("search_traces", page_token=token, include_spans=include_spans, **arguments)
        seen += [info["trace_id"] for info in infos(page)]
        token = page["token"]
    assert token is None
    times = {trace.info.trace_id: trace.info.request_time for trace in recorded.load_traces().values()}
    assert len(set(seen)) == 60
    assert [times[id_] for id_ in seen] == sorted(times[id_] for id_ in seen)


def test_traces_without_spans_do_not_vanish(client: MLflowClient) -> None:
    """Of the 60 recorded traces, MLflow's own server returns two with spans: the rest have none."""
    found = client.found("search_traces", locations=[experiment_id(client, "main")], max_results=60)
    assert len(found["items"]) == 60


def test_a_frame(client: MLflowClient, write: Callable[..., None], make_trace: MakeTrace) -> None:
    """``mlflow.search_traces`` gives pandas' frame, more than one page of it."""
    traces = [make_trace(experiment="frame", request_time=1_700_000_000_000 + n) for n in range(120)]
    traces[-1].data.spans[0].inputs = {"question": "?"}
    traces[-1].data.spans[0].outputs = [1, 2]
    write(*traces)
    frame = client.found("mlflow.search_traces", locations=[experiment_id(client, "frame")])
    assert {"trace_id", "state", "request_time", "execution_duration", "spans", "tags"} <= set(
        frame["columns"]
    )
    rows = frame["rows"]
    assert [row["trace_id"] for row in rows] == [trace.info.trace_id for trace in reversed(traces)]
    assert (rows[0]["request"], rows[0]["response"]) == ({"question": "?"}, [1, 2])
    assert (rows[0]["state"], rows[0]["execution_duration"], len(rows[0]["spans"])) == ("OK", 5, 1)


def test_the_active_experiment(
    client: MLflowClient, write: Callable[..., None], make_trace: MakeTrace
) -> None:
    """It is ``default`` until ``mlflow.set_experiment`` names another one."""
    own, other = make_trace(), make_trace(experiment="active")
    write(own, other)
    found = client.found("mlflow.search_traces", return_type="list")
    assert [trace["info"]["trace_id"] for trace in found] == [own.info.trace_id]
    client.found("mlflow.set_experiment", experiment_name="active")
    found = client.found("mlflow.search_traces", return_type="list")
    assert [trace["info"]["trace_id"] for trace in found] == [other.info.trace_id]


def test_sessions(client: MLflowClient, write: Callable[..., None], make_trace: MakeTrace) -> None:
    """``mlflow.search_sessions`` groups what belongs to one conversation."""
    traces = [
        make_trace(
            experiment="sessions",
            trace_metadata={"mlflow.trace.session": session},
            request_time=1_700_000_000_000 + moment,
        )
        for moment, session in enumerate(["a", "b", "a"])
    ]
    write(*traces)
    found = client.found("mlflow.search_sessions", locations=[experiment_id(client, "sessions")])
    ids = [trace.info.trace_id for trace in traces]
    assert {name: sorted(members) for name, members in found} == {
        "a": sorted([ids[0], ids[2]]),
        "b": [ids[1]],
    }


def test_experiments(client: MLflowClient) -> None:
    """They are found by name, by id, and by search."""
    main = experiment_id(client, "main")
    assert client.found("get_experiment", experiment_id=main) == {
        "id": main,
        "name": "main",
        "stage": "active",
    }
    assert client.found("get_experiment_by_name", name="nope") is None
    assert client.ask("get_experiment", experiment_id="77")["code"] == "RESOURCE_DOES_NOT_EXIST"
    found = client.found("search_experiments", filter_string="name LIKE 'ma%'", order_by=["name DESC"])
    assert [experiment["name"] for experiment in found["items"]] == ["main"]
    assert client.found("search_experiments", view_type=2)["items"] == []


def test_tags_are_set_and_deleted(
    client: MLflowClient, write: Callable[..., None], make_trace: MakeTrace
) -> None:
    """They are those of the store, from then on."""
    trace = make_trace(experiment="tags")
    write(trace)
    id_ = trace.info.trace_id
    client.found("set_trace_tag", trace_id=id_, key="reviewed by", value="ada")
    tags = client.found("get_trace", trace_id=id_)["info"]["tags"]
    assert tags["reviewed by"] == "ada"
    client.found("delete_trace_tag", trace_id=id_, key="reviewed by")
    assert "reviewed by" not in client.found("get_trace", trace_id=id_)["info"]["tags"]
    assert client.ask("delete_trace_tag", trace_id=id_, key="nope")["code"] == "RESOURCE_DOES_NOT_EXIST"
    assert (
        client.ask("set_trace_tag", trace_id="tr-nope", key="a", value="b")["code"]
        == "RESOURCE_DOES_NOT_EXIST"
    )
    assert (
        client.ask("set_trace_tag", trace_id=id_, key="a=b", value="b")["code"] == "INVALID_PARAMETER_VALUE"
    )


@pytest.mark.parametrize(
    ("name", "arguments", "code", "message"),
    [
        ("get_trace", {"trace_id": "tr-nope"}, "RESOURCE_DOES_NOT_EXIST", "no trace has the id 'tr-nope'"),
        (
            "search_traces",
            {"locations": ["1"], "filter_string": "status = 'OK"},
            "INVALID_PARAMETER_VALUE",
            "a quote ' that is never closed",
        ),
        (
            "search_traces",
            {"locations": ["1"], "max_results": 501},
            "INVALID_PARAMETER_VALUE",
            "max_results takes a number from 1 to 500, not 501",
        ),
        (
            "delete_traces",
            {"experiment_id": "1", "trace_ids": ["tr-1"]},
            "NOT_IMPLEMENTED",
            "to delete traces use `wherefrom prune`",
        ),
        (
            "create_experiment",
            {"name": "new"},
            "NOT_IMPLEMENTED",
            "the first trace under WHEREFROM_EXPERIMENT creates one",
        ),
        (
            "create_run",
            {"experiment_id": "1"},
            "NOT_IMPLEMENTED",
            "Wherefrom has traces, their tags, feedback and",
        ),
        ("search_registered_models", {}, "NOT_IMPLEMENTED", "Wherefrom has traces, their tags, feedback and"),
    ],
)
def test_errors_come_at_once(
    client: MLflowClient, name: str, arguments: dict[str, Any], code: str, message: str
) -> None:
    """In one sentence, with MLflow's code, and with no status that its client tries again for minutes."""
    started = time.monotonic()
    answer = client.ask(name, **arguments)
    assert time.monotonic() - started < 60
    assert answer["code"] == code
    assert message in answer["message"]


def test_a_token(url: str, client: MLflowClient) -> None:
    """MLflow's client sends it as a bearer token or as a password; without it nothing is answered."""
    with serving(url, {"WHEREFROM_UI_TOKEN": "sésame"}) as address, reading(address) as stranger:
        for environment, code in (
            ({"MLFLOW_TRACKING_TOKEN": "sésame"}, None),
            ({"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "sésame"}, None),
            ({"MLFLOW_TRACKING_TOKEN": "wrong"}, "UNAUTHENTICATED"),
            ({}, "UNAUTHENTICATED"),
        ):
            answer = stranger.ask_with(environment, "get_experiment_by_name", name="main")
            assert answer.get("code") == code
            assert ("found" in answer) is (code is None)
