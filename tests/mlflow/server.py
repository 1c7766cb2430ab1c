"""MLflow's own server, SQLite behind it, on the loopback, and a client of its REST API.

It runs in a Python that has ``mlflow``, which pins half a hundred packages and is kept in an environment of
its own: ``.venv-mlflow``, made by ``make mlflow``, or the one whose Python ``WHEREFROM_TEST_MLFLOW`` names.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

OWN_PYTHON = Path(__file__).parents[2] / ".venv-mlflow" / "bin" / "python"
MISSING = "no mlflow here: `make mlflow` installs it, or name a Python that has it in WHEREFROM_TEST_MLFLOW"

_PATIENCE_S = 120.0
_FEWEST = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def mlflow_python() -> str | None:
    """A Python that has mlflow, the whole of it."""
    named = os.environ.get("WHEREFROM_TEST_MLFLOW") or str(OWN_PYTHON)
    return named if Path(named).exists() else None


class MLflowServer:
    """A running server. ``python`` has the client that goes with it; ``process`` leads a group of its own."""

    def __init__(self, url: str, python: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.python = python
        self.process = process

    def call(self, path: str, body: Any = None) -> Any:
        """GET, or POST with a body; ``path`` goes on from ``/api/``."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def new_experiment(self, name: str) -> str:
        """The id of a new experiment."""
        return str(self.call("2.0/mlflow/experiments/create", {"name": name})["experiment_id"])

    def experiment(self, name: str) -> str:
        """The id of an experiment that is there."""
        found = self.call(f"2.0/mlflow/experiments/get-by-name?experiment_name={name}")
        return str(found["experiment"]["experiment_id"])

    def traces(self, experiment_id: str, filter_string: str | None = None) -> dict[str, Any]:
        """What it knows of the traces of an experiment, all of them, by id."""
        location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_id}}
        body = {"locations": [location], "max_results": 500, "filter": filter_string}
        found: dict[str, Any] = {}
        while True:
            page = self.call("3.0/mlflow/traces/search", body)
            found |= {trace["trace_id"]: trace for trace in page.get("traces", [])}
            if not page.get("next_page_token"):
                return found
            body["page_token"] = page["next_page_token"]

    def spans(self, trace_id: str) -> list[dict[str, Any]]:
        """The spans of a trace, as OTLP has them."""
        found = self.call(f"3.0/mlflow/traces/get?trace_id={trace_id}")["trace"]["spans"]
        return sorted(found, key=lambda span: str(span["name"]))

    def kill(self) -> None:
        """End it at once, as a lost machine would."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)

    def stop(self) -> None:
        """End it in good order, or else at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def running_server(python: str, folder: Path, port: int | None = None) -> Iterator[MLflowServer]:
    """A server with its database in ``folder``: one worker and no jobs, which starts quickest."""
    port = port or free_port()
    stores = [
        "--backend-store-uri",
        "sqlite:///mlflow.db",
        "--default-artifact-root",
        str(folder / "artifacts"),
    ]
    command = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = folder / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, *stores],
            cwd=folder,
            env=clean_environment() | _FEWEST,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = MLflowServer(f"http://127.0.0.1:{port}", python, process)
    try:
        _wait_until_healthy(server, log)
        yield server
    finally:
        server.stop()


def clean_environment() -> dict[str, str]:
    """The environment without what would steer MLflow, or have its processes measured for coverage."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "MLFLOW"))}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_until_healthy(server: MLflowServer, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with suppress(OSError), urllib.request.urlopen(f"{server.url}/health", timeout=5) as response:
            if response.status == 200:
                return
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"mlflow server did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)
