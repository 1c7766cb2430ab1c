"""What is answered over HTTP, without MLflow: paths, fields, and errors in MLflow's form."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sql import execute
from wherefrom import Trace
from wherefrom.mlflow.serve import make_application
from wherefrom.model import TraceState
from wherefrom.stores import Store
from wherefrom.web.auth import Access

MakeTrace = Callable[..., Trace]

TRACES = "/api/3.0/mlflow/traces"
EXPERIMENTS = "/api/2.0/mlflow/experiments"


def at(*ids: str) -> dict[str, Any]:
    """Where to search."""
    return {"locations": [{"mlflow_experiment": {"experiment_id": id_}} for id_ in ids]}


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """The sentence of an error with this status and code."""
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert set(answer.json()) == {"error_code", "message"}
    message: str = answer.json()["message"]
    return message


def numbered(make_trace: MakeTrace, count: int, **info: Any) -> list[Trace]:
    return [make_trace(request_time=1_700_000_000_000 + n, **info) for n in range(count)]


async def test_a_search_gives_infos(http: httpx.AsyncClient, store: Store, make_trace: MakeTrace) -> None:
    """A page of them, the newest first, and the token of the next page."""
    traces = numbered(make_trace, 5)
    store.write([*traces, make_trace(experiment="other")])
    asked = at("1") | {"max_results": "3", "filter": "status = 'OK'", "order_by": ["timestamp_ms DESC"]}
    first = (await http.post(f"{TRACES}/search", json=asked)).json()
    assert first["traces"][0] == {
        "trace_id": traces[4].info.trace_id,
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "1"}},
        "request_time": "2023-11-14T22:13:20.004Z",
        "execution_duration": "0.005s",
        "state": "OK",
        "trace_metadata": {"mlflow.trace_schema.version": "3"},
        "tags": {"mlflow.traceName": "GET /", "mlflow.trace.spansLocation": "TRACKING_STORE"},
    }
    second = await http.post(f"{TRACES}/search", json=asked | {"page_token": first["next_page_token"]})
    found = [trace["trace_id"] for trace in first["traces"] + second.json()["traces"]]
    assert found == [trace.info.trace_id for trace in reversed(traces)]
    assert "next_page_token" not in second.json()


async def test_where_to_search(http: httpx.AsyncClient, store: Store, make_trace: MakeTrace) -> None:
    """Experiments are named by id, or by name where that is no id; unknown ones hold nothing."""
    store.write([make_trace("a", experiment="2"), make_trace("b", experiment="chat"), make_trace("c")])

    async def names(*ids: str) -> set[str]:
        found = await http.post(f"{TRACES}/search", json=at(*ids))
        return {trace["tags"]["mlflow.traceName"] for trace in found.json()["traces"]}

    assert await names("1") == {"a"}
    assert await names("2") == {"b"}
    assert await names("chat", "1") == {"a", "b"}
    assert await names("0") == await names("Default") == await names("default") == await names("3") == {"c"}
    assert await names("77", "nobody") == set()


async def test_what_is_added_can_be_asked_for(
    http: httpx.AsyncClient, store: Store, make_trace: MakeTrace
) -> None:
    """Where the spans are is a tag of every trace, in answers and in filters."""
    store.write([make_trace()])
    asked = at("1") | {"filter": "tag.mlflow.trace.spansLocation = 'TRACKING_STORE'"}
    assert len((await http.post(f"{TRACES}/search", json=asked)).json()["traces"]) == 1


async def test_traces_with_their_spans(http: httpx.AsyncClient, store: Store, make_trace: MakeTrace) -> None:
    """One or several at once; missing ones are left out."""
    traces = numbered(make_trace, 3)
    store.write(traces)
    ids = [trace.info.trace_id for trace in traces]
    answer = await http.get(f"{TRACES}/get", params={"trace_id": ids[0], "allow_partial": "true"})
    trace = answer.json()["trace"]
    assert trace["trace_info"]["trace_id"] == ids[0]
    assert trace["spans"][0]["name"] == "GET /"
    answer = await http.get(f"{TRACES}/batchGet", params={"trace_ids": [ids[2], "tr-nope", ids[0]]})
    assert [trace["trace_info"]["trace_id"] for trace in answer.json()["traces"]] == [ids[2], ids[0]]
    answer = await http.post(f"{TRACES}/batchGetInfos", json={"trace_ids": ids})
    assert [info["trace_id"] for info in answer.json()["trace_infos"]] == ids
    answer = await http.get(f"{TRACES}/{ids[1]}")
    assert answer.json()["trace"]["trace_info"]["trace_id"] == ids[1]
    assert "spans" not in answer.json()["trace"]


async def test_a_trace_that_is_not_there(http: httpx.AsyncClient) -> None:
    for path in (f"{TRACES}/get?trace_id=tr-nope", f"{TRACES}/tr-nope"):
        message = refused(await http.get(path), 404, "RESOURCE_DOES_NOT_EXIST")
        assert message == "no trace has the id 'tr-nope'"


@pytest.mark.parametrize("version", ["2.0", "3.0"])
async def test_tags(http: httpx.AsyncClient, store: Store, make_trace: MakeTrace, version: str) -> None:
    """They are set by PATCH and deleted by DELETE, with a body."""
    trace = make_trace()
    store.write([trace])
    path = f"/api/{version}/mlflow/traces/{trace.info.trace_id}/tags"

    async def tags() -> dict[str, str]:
        answer = await http.get(f"{TRACES}/{trace.info.trace_id}")
        found: dict[str, str] = answer.json()["trace"]["trace_info"]["tags"]
        return found

    for value in ("x", ""):
        assert (await http.patch(path, json={"key": "k", "value": value})).json() == {}
        assert (await tags())["k"] == value
    assert (await http.request("DELETE", path, json={"key": "k"})).json() == {}
    assert "k" not in await tags()
    refused(await http.request("DELETE", path, json={"key": "k"}), 404, "RESOURCE_DOES_NOT_EXIST")
    refused(await http.patch(path, json={"key": "a=b", "value": "x"}), 400, "INVALID_PARAMETER_VALUE")
    message = refused(await http.patch(path, json={"value": "x"}), 400, "INVALID_PARAMETER_VALUE")
    assert message == "Missing value for required parameter 'key'."


async def test_experiments(http: httpx.AsyncClient, store: Store, make_trace: MakeTrace) -> None:
    store.write([make_trace(experiment=name) for name in ("chat", "shop")])
    chat = {"experiment_id": "1", "name": "chat", "artifact_location": "", "lifecycle_stage": "active"}
    for path in ("get?experiment_id=1", "get?experiment_id=chat", "get-by-name?experiment_name=chat"):
        assert (await http.get(f"{EXPERIMENTS}/{path}")).json() == {"experiment": chat}
    for path in ("get?experiment_id=9", "get-by-name?experiment_name=1"):
        refused(await http.get(f"{EXPERIMENTS}/{path}"), 404, "RESOURCE_DOES_NOT_EXIST")
    first = (await http.post(f"{EXPERIMENTS}/search", json={"max_results": 1})).json()
    assert first["experiments"][0]["name"] == "shop"
    asked = {"max_results": 1, "page_token": first["next_page_token"], "view_type": "ACTIVE_ONLY"}
    assert (await http.get(f"{EXPERIMENTS}/search", params=asked)).json() == {"experiments": [chat]}
    deleted = await http.post(f"{EXPERIMENTS}/search", json={"view_type": "DELETED_ONLY"})
    assert deleted.json() == {"experiments": []}


async def test_whether_it_is_there(http: httpx.AsyncClient) -> None:
    """Load balancers request ``/health``, MLflow's client ``/version``."""
    assert (await http.get("/health")).text == "OK"
    assert (await http.get("/version")).text == "3.17.2"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "Missing value for required parameter 'locations'."),
        ({"locations": []}, "Missing value for required parameter 'locations'."),
        ({"locations": "1"}, 'locations takes a list, not "1"'),
        ({"locations": ["1"]}, "a location takes the form"),
        ({"locations": [{"mlflow_experiment": {"experiment_id": 1}}]}, "a location takes the form"),
        ({"locations": [{"uc_schema": {"catalog_name": "a"}}]}, "a location takes the form"),
        (at("1") | {"filter": "status = "}, "expected"),
        (at("77") | {"filter": "status = "}, "expected"),
        (at("1") | {"filter": 5}, "filter takes a string, not 5"),
        (at("1") | {"filter": {"a": "b" * 100}}, 'filter takes a string, not {"a":"bbb'),
        (at("1") | {"order_by": "name"}, 'order_by takes a list, not "name"'),
        (at("1") | {"order_by": [1]}, "order_by takes a list of strings, not 1"),
        (at("1") | {"order_by": ["nope"]}, "cannot order by 'nope'"),
        (at("1") | {"max_results": 0}, "max_results takes a number from 1 to 500, not 0"),
        (at("1") | {"max_results": 501}, "max_results takes a number from 1 to 500, not 501"),
        (at("1") | {"max_results": 1.5}, "max_results takes a number from 1 to 500, not 1.5"),
        (at("1") | {"max_results": True}, "max_results takes a number from 1 to 500, not true"),
        (at("1") | {"max_results": "many"}, 'max_results takes a number from 1 to 500, not "many"'),
        (at("1") | {"page_token": "eyJvZmZzZXQiOiAxfQ=="}, "this page_token is not one"),
        ([1], "the body takes a JSON object, not [1]"),
    ],
)
async def test_a_search_that_cannot_be_read(http: httpx.AsyncClient, asked: Any, message: str) -> None:
    """It is refused in one sentence that names the parameter and what it takes."""
    answer = await http.post(f"{TRACES}/search", json=asked)
    assert message in refused(answer, 400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"null", "the body takes a JSON object, not null"),
        (b'{"a": "\\ud800"}', "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"a": "' + b"x" * 1_000_000 + b'"}', "the body takes at most 1,000,000 bytes"),
    ],
)
async def test_a_body_that_cannot_be_read(http: httpx.AsyncClient, body: bytes, message: str) -> None:
    answer = await http.post(f"{TRACES}/search", content=body, headers={"content-type": "application/json"})
    assert message in refused(answer, 400, "INVALID_PARAMETER_VALUE")


async def test_an_answer_is_no_longer_than_it_has_to_be(http: httpx.AsyncClient) -> None:
    """What was sent is not sent back in full."""
    answer = await http.get(f"{TRACES}/get", params={"trace_id": "x" * 20_000})
    message = refused(answer, 404, "RESOURCE_DOES_NOT_EXIST")
    assert len(message) == 1000
    assert message.endswith("xxx...")


async def test_ids_that_are_missing_or_too_many(http: httpx.AsyncClient) -> None:
    for path in (f"{TRACES}/get", f"{TRACES}/batchGet", f"{EXPERIMENTS}/get", f"{EXPERIMENTS}/get-by-name"):
        assert "Missing value for required parameter" in refused(
            await http.get(path), 400, "INVALID_PARAMETER_VALUE"
        )
    answer = await http.get(f"{TRACES}/batchGet", params={"trace_ids": ["tr-1"] * 501})
    assert refused(answer, 400, "INVALID_PARAMETER_VALUE") == "trace_ids takes at most 500 values, not 501"


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("POST", "/api/3.0/mlflow/traces", "Wherefrom's middleware records them"),
        ("POST", "/v1/traces", "Wherefrom's middleware records them"),
        ("PATCH", "/api/2.0/mlflow/traces/tr-1", "Wherefrom's middleware records them"),
        (
            "POST",
            "/api/2.0/mlflow/traces/delete-traces",
            "`wherefrom prune` or wherefrom.TraceClient.delete_traces",
        ),
        (
            "POST",
            "/api/2.0/mlflow/experiments/create",
            "the first trace under WHEREFROM_EXPERIMENT creates one",
        ),
        (
            "POST",
            "/api/2.0/mlflow/experiments/set-experiment-tag",
            "this API does not change experiments",
        ),
        ("GET", "/api/2.0/mlflow/traces", "a client of MLflow 3"),
        ("GET", "/api/2.0/mlflow/traces/tr-1/info", "a client of MLflow 3"),
        ("POST", "/api/2.0/mlflow/runs/create", "Wherefrom has traces, their tags, feedback and experiments"),
        (
            "PUT",
            "/api/2.0/mlflow-artifacts/artifacts/a",
            "there is nothing at PUT /api/2.0/mlflow-artifacts/",
        ),
        ("GET", "/", "there is nothing at GET /: this API is for MLflow's client"),
        ("GET", "/" + "x" * 200, "..."),
        ("TRACE", "/health", "Method Not Allowed"),
    ],
)
async def test_what_is_not_supported_says_so(
    http: httpx.AsyncClient, method: str, path: str, message: str
) -> None:
    """In one sentence, with a status that MLflow's client does not try again."""
    answer = await http.request(method, path, json={})
    assert answer.status_code in {404, 405, 501}
    assert answer.json()["error_code"] in {"NOT_IMPLEMENTED", "ENDPOINT_NOT_FOUND"}
    assert message in answer.json()["message"]
    assert "\n" not in answer.json()["message"]


async def test_a_store_that_is_locked(
    http: httpx.AsyncClient, store: Store, make_trace: MakeTrace, tmp_path: Path
) -> None:
    """The response tells MLflow's client to retry."""
    trace = make_trace()
    store.write([trace])
    path = f"{TRACES}/{trace.info.trace_id}/tags"
    connection = sqlite3.connect(tmp_path / "wherefrom.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        answer = await http.patch(path, json={"key": "k", "value": "v"})
    finally:
        connection.close()
    refused(answer, 503, "TEMPORARILY_UNAVAILABLE")


async def test_a_store_that_is_broken(http: httpx.AsyncClient, store: Store, make_trace: MakeTrace) -> None:
    """It will not be better in a moment: MLflow's client hears of it at once."""
    store.write([make_trace()])
    execute(store, "DROP TABLE traces")
    answer = await http.post(f"{TRACES}/search", json=at("1"))
    assert "no such table" in refused(answer, 501, "INTERNAL_ERROR")


async def test_a_bug_is_no_secret(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is a 500 without internals."""
    monkeypatch.setattr("wherefrom.client.TraceClient.get_traces", lambda *_, **__: 1 / 0)
    message = refused(await http.get(f"{TRACES}/tr-1"), 500, "INTERNAL_ERROR")
    assert (
        message == "the request failed because of a bug in Wherefrom; the log of the server has the details"
    )


async def test_a_client_that_leaves(store: Store) -> None:
    """One that goes away while it sends is no bug."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{TRACES}/search",
        "query_string": b"",
        "headers": headers,
    }
    await make_application(store, Access())(scope, receive, send)
    assert sent[0]["status"] == 400


async def test_states(http: httpx.AsyncClient, store: Store, make_trace: MakeTrace) -> None:
    """A trace that runs has no duration yet."""
    trace = make_trace(state=TraceState.IN_PROGRESS, execution_duration=None)
    trace.data.spans.clear()
    store.write([trace])
    info = (await http.get(f"{TRACES}/{trace.info.trace_id}")).json()["trace"]["trace_info"]
    assert info["state"] == "IN_PROGRESS"
    assert "execution_duration" not in info
