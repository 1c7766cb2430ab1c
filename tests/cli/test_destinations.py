"""What the doctor says of the places that traces are sent to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..exporters.mlflow.stub import StubServer
from ..mlflow.server import free_port
from .conftest import make_trace, run

Write = Callable[..., None]


@pytest.fixture
def server() -> Iterator[StubServer]:
    server = StubServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _store_in_order(write: Write) -> None:
    write(make_trace(1))


def examined(monkeypatch: pytest.MonkeyPatch, *targets: str) -> dict[str, Any]:
    monkeypatch.setenv("WHEREFROM_EXPORT", ",".join(targets))
    report: dict[str, Any] = json.loads(run("doctor", "--json").out)
    return report


def test_an_mlflow_server_is_asked_and_sent_nothing(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.experiments["chat"] = "3"
    monkeypatch.setenv("WHEREFROM_EXPERIMENT", "new")
    targets = [f"mlflow+{server.url}?experiment=chat", f"mlflow+{server.url}"]
    report = examined(monkeypatch, *targets, "console:")
    assert [(each["target"], each["state"]) for each in report["destinations"]] == [
        (targets[0], "answers, and has the experiment 'chat'"),
        (targets[1], "answers, and will make the experiment 'new'"),
        ("console:", "not asked"),
    ]
    assert report["problems"] == []
    assert {asked.path for asked in server.asked} == {"/api/2.0/mlflow/experiments/get-by-name"}


def test_an_experiment_id_is_looked_for(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    report = examined(monkeypatch, f"mlflow+{server.url}")
    assert report["destinations"][0]["state"] == "answers, and has experiment 0"


def test_what_cannot_be_reached_or_used_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no secret is told."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    report = examined(monkeypatch, f"mlflow+http://ada:hunter2@127.0.0.1:{free_port()}", "mlflow")
    assert [each["state"] for each in report["destinations"]] == ["does not answer", "cannot be used"]
    first, second = report["problems"]
    assert "ConnectionRefusedError" in first
    assert second == "WHEREFROM_EXPORT=mlflow takes an http server in MLFLOW_TRACKING_URI, which is not set"
    assert "hunter2" not in json.dumps(report)
    result = run("doctor")
    assert result.code == 1
    assert "does not answer" in result.out
    assert "hunter2" not in result.out + result.err


def test_without_any_there_is_no_section() -> None:
    assert "Destinations" not in run("doctor").out
