"""An app under real uvicorn that exports to MLflow's own server."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ..exporters.receiver import Reply
from ..mlflow.server import MISSING, MLflowServer, free_port, mlflow_python, running_server
from ..mlflow.stub import SPANS, TRACES, Asked, StubServer
from .processes import PROMPT, Server, load, running, start, until

METADATA = {
    "APP_VERSION": "1.4.0",
    "APP_ENVIRONMENT": "production",
    "DEPLOYMENT_ID": "deploy-7",
    "REGION": "eu-central-1",
}
KINDS = ("items/{}", "stream/60?{}", "fail/{}", "background?{}")


async def ask_everything(server: Server, count: int) -> dict[str, str]:
    """``count`` requests of four kinds, all at once; the kind of each by its request id."""
    kinds = {f"request-{number}": KINDS[number % 4] for number in range(count)}

    async def ask(request: str, kind: str) -> None:
        headers = {"X-Request-ID": request, "X-Session-ID": f"s-{request}", "X-User-ID": f"u-{request}"}
        async with server.connection() as connection:
            await connection.request("/" + kind.format(request), headers)

    await asyncio.gather(*(ask(request, kind) for request, kind in kinds.items()))
    return kinds


async def until_told(mlflow: MLflowServer, place: str, ids: set[str], server: Server) -> dict[str, Any]:
    """The traces of an experiment by request id, when it has been told of all; none is there twice.

    A trace is there as soon as its spans are; what else there is to know of it comes a moment later.
    """
    deadline = time.monotonic() + 180
    while True:
        traces = (await asyncio.to_thread(mlflow.traces, place)).values()
        found = {trace.get("client_request_id"): trace for trace in traces}
        if found.keys() == ids:
            assert len(traces) == len(ids)
            return found
        assert time.monotonic() < deadline, f"{len(found)} of {len(ids)}\n{server.output()[-3000:]}"
        await asyncio.sleep(0.5)


def names_below(spans: list[dict[str, Any]]) -> Counter[str]:
    """The names of the spans that are right below the root."""
    (root,) = (span for span in spans if not span.get("parent_span_id"))
    return Counter(span["name"] for span in spans if span.get("parent_span_id") == root["span_id"])


async def test_eighty_requests_at_once_are_eighty_traces(
    tmp_path: Path, mlflow_server: MLflowServer, request: pytest.FixtureRequest
) -> None:
    """Plain, streaming, failing, and with a background task: each complete, with its own ids and spans."""
    place = mlflow_server.new_experiment(request.node.name)
    target = f"mlflow+{mlflow_server.url}?experiment={request.node.name}"
    server = start(tmp_path, "uvicorn", environ={**PROMPT, **METADATA, "WHEREFROM_EXPORT": target})
    with running(server):
        kinds = await ask_everything(server, 80)
        found = await until_told(mlflow_server, place, set(kinds), server)
    for request_id, kind in kinds.items():
        trace = found[request_id]
        metadata, tags = trace["trace_metadata"], trace["tags"]
        assert metadata["mlflow.trace.session"] == f"s-{request_id}"
        assert metadata["mlflow.trace.user"] == f"u-{request_id}"
        assert metadata["mlflow.source.name"] == "app:app"
        told = [metadata[key] for key in ("app_version", "environment", "deployment_id", "region")]
        assert told == list(METADATA.values())
        assert trace["state"] == ("ERROR" if "fail" in kind else "OK")
        path = kind.split("/")[0].split("?")[0]
        assert tags["mlflow.traceName"].startswith(f"GET /{path}")
    for kind, below in zip(KINDS, ({"work": 1}, {"model": 1}, {}, {"later": 1}), strict=True):
        one = next(request_id for request_id in kinds if kinds[request_id] == kind)
        assert names_below(mlflow_server.spans(found[one]["trace_id"])) == below


async def test_a_server_that_is_killed_and_comes_back_has_everything(
    tmp_path: Path,
) -> None:
    """With the app under load all the while, and none of its requests the slower for it."""
    python = mlflow_python()
    if python is None:
        pytest.skip(MISSING)
    port = free_port()
    folder = tmp_path / "mlflow"
    folder.mkdir()
    target = f"mlflow+http://127.0.0.1:{port}?experiment=chat"
    environ = {**PROMPT, "WHEREFROM_EXPORT": target, "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
    with running_server(python, folder, port) as mlflow:
        place = mlflow.new_experiment("chat")
        server = start(tmp_path / "app", "uvicorn", environ=environ, measured=False)
        with running(server):
            first = await load(server, [f"a-{number}" for number in range(60)], connections=10)
            await until(lambda: bool(mlflow.traces(place)), "the first traces", server, 60)
            mlflow.kill()
            started = time.monotonic()
            second = await load(server, [f"b-{number}" for number in range(60)], connections=10)
            assert time.monotonic() - started < 10
            with running_server(python, folder, port) as again:
                await until_told(again, place, {*first, *second}, server)
    assert {answer.status for answer in [*first.values(), *second.values()]} == {200}


async def test_a_burst_of_three_thousand_loses_nothing(tmp_path: Path) -> None:
    """Though the server takes its time, and fails now and then."""
    stub = StubServer()
    asked = Counter[str]()

    def judge(request: Asked) -> Reply | None:
        asked[request.path] += 1
        if request.path == SPANS and asked[SPANS] % 5 == 1:
            return Reply(503)
        return Reply(500, b"{}", {"content-type": "application/json"}) if asked[TRACES] == 999 else None

    stub.judge = judge
    environ = {"WHEREFROM_EXPORT": f"mlflow+{stub.url}"}
    server = start(tmp_path, "uvicorn", environ=environ, measured=False)
    try:
        with running(server):
            requests = [f"r-{number}" for number in range(3000)]
            answers = await load(server, requests)
            assert {answer.status for answer in answers.values()} == {200}
            await until(lambda: len(stub.infos) == 3000, "all traces", server, 120)
        assert {info["client_request_id"] for info in stub.infos.values()} == set(requests)
        assert Counter(stub.spans.values()) == {1: 6000}
    finally:
        stub.close()
