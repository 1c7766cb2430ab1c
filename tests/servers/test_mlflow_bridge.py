"""MLflow inside the requests of a real uvicorn, sending to a real server, read by MLflow's own client."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import wherefrom

from ..mlflow.server import MLflowServer, clean_environment, free_port
from .processes import HERE, PROMPT, Answer, Server, message, running, start

READ = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
for experiment in sys.stdin:
    found, token = [], None
    while True:
        page = client.search_traces(locations=[experiment.strip()], max_results=100, page_token=token)
        found += page
        if not (token := page.token):
            break
    print(json.dumps([{
        "id": trace.info.trace_id,
        "request": trace.info.client_request_id,
        "state": str(trace.info.state),
        "name": trace.info.tags.get("mlflow.traceName"),
        "tags": trace.info.tags,
        "metadata": trace.info.trace_metadata,
        "preview": trace.info.response_preview,
        "spans": [[s.name, s.span_id, s.parent_id, s.end_time_ns is not None] for s in trace.data.spans],
    } for trace in found]), flush=True)
"""


class Read:
    """A trace as ``MlflowClient`` reads it."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.id: str = data["id"]
        self.request: str = data["request"] or ""
        self.state: str = data["state"]
        self.name: str = data["name"]
        self.tags: dict[str, str] = data["tags"]
        self.metadata: dict[str, str] = data["metadata"]
        self.preview: str | None = data["preview"]
        names = {span_id: name for name, span_id, _, _ in data["spans"]}
        self.tree = sorted((name, names.get(parent, "")) for name, _, parent, _ in data["spans"])
        self.all_ended = all(ended for *_, ended in data["spans"])


Reader = Callable[[str], dict[str, Read]]


@pytest.fixture(scope="module")
def read(mlflow_server: MLflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Every trace of an experiment by its request id, as the real ``MlflowClient`` finds it."""
    log = tmp_path_factory.mktemp("reader") / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [mlflow_server.python, "-c", READ, mlflow_server.url],
            env=clean_environment() | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    asked, answers = process.stdin, process.stdout
    assert asked is not None
    assert answers is not None

    def _read(experiment: str) -> dict[str, Read]:
        asked.write(f"{mlflow_server.experiment(experiment)}\n")
        asked.flush()
        answer = answers.readline()
        assert answer, log.read_text()[-3000:]
        found = [Read(data) for data in json.loads(answer)]
        assert len({trace.request for trace in found}) == len(found)
        return {trace.request: trace for trace in found}

    yield _read
    process.communicate(timeout=60)


def environ(server: MLflowServer, experiment: str, **more: str) -> dict[str, str]:
    return {
        **PROMPT,
        "WHEREFROM_BRIDGES": "mlflow",
        "WHEREFROM_SHUTDOWN_TIMEOUT": "60",
        "MLFLOW_TRACKING_URI": server.url,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **more,
    }


def stop(app: Server, how: signal.Signals = signal.SIGTERM, patience: float = 90) -> None:
    """End the app as an operator does: what waits is sent."""
    app.process.send_signal(how)
    app.process.wait(patience)


TREES = {
    "plain": [
        ("GET /plain/{item}", ""),
        ("model", "ours"),
        ("ours", "plain"),
        ("plain", "GET /plain/{item}"),
        ("rank", "retrieve"),
        ("retrieve", "ours"),
    ],
    "sync": [
        ("GET /sync/{item}", ""),
        ("rank", "retrieve"),
        ("retrieve", "sync"),
        ("sync", "GET /sync/{item}"),
    ],
    "stream": [
        ("GET /stream/{item}", ""),
        ("answer", "GET /stream/{item}"),
        *[("model", "answer")] * 3,
    ],
    "fail": [("GET /fail/{item}", ""), ("fail", "GET /fail/{item}"), ("model", "fail")],
}


async def test_eighty_requests_are_eighty_traces(
    mlflow_server: MLflowServer, read: Reader, tmp_path: Path
) -> None:
    """All at once, plain, in threads, streaming and failing: each with its ids, words, state and spans.

    The experiment did not exist, and nobody has called ``mlflow.set_experiment``.
    """
    experiment = f"bridge-{uuid4().hex}"
    app = start(
        tmp_path,
        "uvicorn",
        app="mlflow_app:app",
        environ=environ(mlflow_server, experiment, APP_VERSION="1.2.3", REGION="eu"),
    )
    kinds = list(TREES)
    requests = {f"{kinds[number % 4]}-{number}": kinds[number % 4] for number in range(80)}

    async def one(request: str, kind: str) -> Answer:
        headers = {"X-Request-ID": request, "X-Session-ID": f"s-{request}", "X-User-ID": f"u-{request}"}
        return await app.get(f"/{kind}/{request}", headers)

    with running(app, patience=120):  # MLflow is slow to import
        answers = dict(
            zip(requests, await asyncio.gather(*(one(*pair) for pair in requests.items())), strict=True)
        )
        ours = await app.traces(list(requests))
        stop(app)
    found = read(experiment)
    assert set(found) == set(requests)
    for request, kind in requests.items():
        trace = found[request]
        assert trace.id == ours[request].trace_id
        if kind in {"plain", "sync"}:
            assert answers[request].json()["trace"] == trace.id
        assert trace.tree == TREES[kind]
        assert trace.all_ended
        assert trace.state == ours[request].state == ("ERROR" if kind == "fail" else "OK")
        assert trace.tags["item"] == trace.metadata["item"] == request
        assert trace.metadata["mlflow.trace.session"] == f"s-{request}"
        assert trace.metadata["mlflow.trace.user"] == f"u-{request}"
        assert trace.metadata["app_version"] == "1.2.3"
        assert trace.metadata["region"] == "eu"
        assert trace.metadata["mlflow.source.name"] == "mlflow_app:app"
        names = sorted(span["name"] for span in ours[request].spans)
        assert names == sorted(name for name, _ in TREES[kind])


async def test_a_connection_that_is_kept_alive(
    mlflow_server: MLflowServer, read: Reader, tmp_path: Path
) -> None:
    """A large POST, then GETs, where uvicorn leaks context: each a trace of its own, and what is excluded."""
    experiment = f"bridge-{uuid4().hex}"
    options = environ(mlflow_server, "", WHEREFROM_EXCLUDE="/health/*", SET_EXPERIMENT=experiment)
    app = start(tmp_path, "uvicorn --loop asyncio --http h11", app="mlflow_app:app", environ=options)
    with running(app, patience=120):  # MLflow is slow to import
        async with app.connection() as connection:
            posted = await connection.request(
                "/items/post", {"X-Request-ID": "post"}, method="POST", body=b"x" * 300_000
            )
            after = await connection.request("/plain/get", {"X-Request-ID": "get"})
            left_out = await connection.request("/health/out", {"X-Request-ID": "out"})
            connection.writer.write(
                b"".join(message(f"/plain/p{n}", {"X-Request-ID": f"p{n}"}) for n in (1, 2))
            )
            pipelined = [await connection.answer() for _ in range(2)]
        stop(app)
    found = read(experiment)
    out = found.pop("")  # it has no request id: we have left it alone
    assert set(found) == {"post", "get", "p1", "p2"}
    for name, answer in zip(("post", "get", "p1", "p2"), (posted, after, *pipelined), strict=True):
        assert answer.json()["trace"] == found[name].id
        assert found[name].tags["item"] == name
    for name in ("get", "p1", "p2"):
        assert found[name].tree == TREES["plain"]
    assert left_out.json()["trace"] == out.id
    assert out.tree == [("health", "")]
    assert out.tags["item"] == "out"


async def test_a_client_that_leaves(mlflow_server: MLflowServer, read: Reader, tmp_path: Path) -> None:
    """In the middle of a traced generator: MLflow alone loses the trace; here it is complete."""
    experiment = f"bridge-{uuid4().hex}"
    app = start(tmp_path, "uvicorn", app="mlflow_app:app", environ=environ(mlflow_server, experiment))
    with running(app, patience=120):  # MLflow is slow to import
        async with app.connection() as connection:
            connection.writer.write(message("/numbers/left", {"X-Request-ID": "left"}))
            await connection.reader.readuntil(b"000000100")
        ours = await app.trace("left")
        stop(app)
    trace = read(experiment)["left"]
    assert trace.tree == [("GET /numbers/{item}", ""), ("count", "GET /numbers/{item}")]
    assert trace.all_ended
    assert trace.tags["item"] == "left"
    assert trace.state == ours.state == "OK"
    assert ours.attributes["wherefrom.outcome"] == "client_closed"


@pytest.mark.parametrize(("named", "how"), [(True, signal.SIGTERM), (False, signal.SIGINT)])
async def test_a_server_that_is_down(named: bool, how: signal.Signals, tmp_path: Path) -> None:
    """Neither the requests nor the end of the process wait for it; we record all the same.

    After Ctrl-C a process ends by itself, and waits for the threads of MLflow's pool.
    """
    nowhere = f"http://127.0.0.1:{free_port()}"
    options = {
        **PROMPT,
        "WHEREFROM_BRIDGES": "mlflow",
        "WHEREFROM_SHUTDOWN_TIMEOUT": "2",
        "MLFLOW_TRACKING_URI": nowhere,
        "MLFLOW_EXPERIMENT_NAME" if named else "MLFLOW_EXPERIMENT_ID": "7",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    app = start(tmp_path, "uvicorn", app="mlflow_app:app", environ=options)
    ids = [f"plain-{number}" for number in range(40)]
    with running(app, patience=120):  # MLflow is slow to import
        await app.get("/plain/first")
        began = time.monotonic()
        answers = await asyncio.gather(*(app.get(f"/plain/{name}", {"X-Request-ID": name}) for name in ids))
        assert time.monotonic() - began < 60  # MLflow alone: four minutes for each
        assert {answer.status for answer in answers} == {200}
        assert len(await app.traces(ids)) == 40
        began = time.monotonic()
        stop(app, how)
        assert time.monotonic() - began < 60  # MLflow alone: four minutes


def test_the_whole_of_mlflow(mlflow_server: MLflowServer, tmp_path: Path) -> None:
    """Not ``mlflow-tracing`` alone: its own SQLite store, a run that is active, and values it chokes on."""
    version = subprocess.run([mlflow_server.python, "-V"], capture_output=True, text=True, check=True).stdout
    if version.split()[1].split(".")[:2] != platform.python_version().split(".")[:2]:
        pytest.skip(
            f"MLflow is installed for {version.strip()}, which cannot import this environment's packages"
        )
    folders = [str(HERE), sysconfig.get_paths()["purelib"], str(Path(wherefrom.__file__).parents[1])]
    done = subprocess.run(
        [mlflow_server.python, str(HERE / "mlflow_whole.py"), *folders],
        cwd=tmp_path,
        env=clean_environment()
        | {
            "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "WHEREFROM_BRIDGES": "mlflow",
            "WHEREFROM_STORE": "none",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"/plain/1", "/sync/2", "/stream/3", "/fail/4", "/odd"}
    for request, trace in found.items():
        assert trace["run"]
        assert trace["state"] == ("ERROR" if request == "/fail/4" else "OK")
        assert trace["metadata"]["mlflow.trace.user"] == "ada"
        assert trace["metadata"]["app_version"] == "development"
        assert trace["tags"]["mlflow.traceName"].startswith("GET /")
    assert sorted(found["/plain/1"]["spans"]) == sorted(name for name, _ in TREES["plain"])
    odd = found["/odd"]["metadata"]
    assert odd["mlflow.trace.session"] == "s" * 250
    assert (odd["a dict"], odd["5"], odd["surrogate"]) == ("{'a': 1}", "five", "?")


@pytest.mark.parametrize("order", ["outside", "inside"])
@pytest.mark.parametrize("bridges", ["mlflow", "mlflow,opentelemetry"])
def test_on_opentelemetrys_provider(
    mlflow_server: MLflowServer, tmp_path: Path, bridges: str, order: str
) -> None:
    """MLflow shares it: FastAPI's server span is the root on every side, and no span is there twice."""
    experiment = mlflow_server.new_experiment(f"shared-{uuid4().hex}")
    done = subprocess.run(
        [sys.executable, str(HERE / "mlflow_shared.py"), bridges, order, experiment],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
        | {
            "MLFLOW_USE_DEFAULT_TRACER_PROVIDER": "false",
            "MLFLOW_TRACKING_URI": mlflow_server.url,
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == {}
    assert found["names"] == ["GET /items/{item}"] * 2
    assert found["said"] == {"0": "u0", "1": "u1"}
    assert len(found["ours"]) == 2
    assert found["ours"] == found["theirs"] == found["exported"]
    for tree in found["ours"].values():
        assert ["handler", "fastapi.endpoint"] in tree
        assert ["theirs", "library"] in tree
        assert ["library", "ours"] in tree
        assert ["ours", "handler"] in tree
        assert len(tree) == 8
