"""``wherefrom deployments``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from rich.cells import cell_len

from wherefrom import keys
from wherefrom.model import Source, Trace, TraceState

from .conftest import HOSTILE, is_harmless, make_trace, run

Write = Callable[..., None]

NOW = int(time.time() * 1000)
DAY = 86_400_000


def sent_by(number: int, version: str, days_ago: float, **changes: object) -> Trace:
    pairs = {
        keys.APP_VERSION: version,
        keys.DEPLOYMENT_ID: f"deploy-{version}",
        keys.ENVIRONMENT: "production",
        keys.REGION: "eu",
        keys.GIT_COMMIT: "c0ffee" * 6,
    }
    trace = make_trace(number, request_time=round(NOW - days_ago * DAY), spans=[], **changes)
    trace.info.source = Source(pairs)
    trace.info.trace_metadata |= pairs
    return trace


@pytest.fixture
def deployed(write: Write) -> None:
    write(
        sent_by(1, "1.0.0", 5),
        sent_by(2, "1.1.0", 0.5, state=TraceState.ERROR),
        sent_by(3, "1.1.0", 0.4),
        sent_by(4, "1.2.0", 0.1),
    )


@pytest.mark.usefixtures("deployed")
def test_each_deployment_is_a_line_the_latest_first() -> None:
    """Those that sent traces within a day, or since another time."""
    result = run("deployments")
    assert (result.code, result.err) == (0, "")
    assert [line.split()[2] for line in result.lines[1:]] == ["1.2.0", "1.1.0"]
    assert result.lines[2].split()[-5:] == ["2", "50.0", "%", "120", "ms"]
    assert "deploy-1.1.0  production" in result.lines[2]
    assert "c0ffeec0ffee " in result.lines[2]
    assert len(run("deployments", "--since", "7d").lines) == 4


@pytest.mark.usefixtures("deployed")
def test_a_filter_chooses_the_traces() -> None:
    found = json.loads(run("deployments", "status = 'ERROR'", "--json").out)
    assert [(one["version"], one["traces"], one["error_rate"]) for one in found["found"]] == [
        ("1.1.0", 1, 1.0)
    ]
    assert found["others"] == 0
    none = run("deployments", "status = 'ERROR'", "--since", "1h")
    assert (none.code, none.out) == (0, "")
    assert none.err.startswith("No deployment sent such traces")
    assert run("deployments", "stat = 'OK'").code == 2


def test_hostile_metadata_is_harmless(write: Write) -> None:
    write(sent_by(1, HOSTILE, 0))
    for width in (None, 80, 200):
        result = run("deployments", width=width)
        assert result.code == 0
        assert is_harmless(result.out)
        assert width is None or all(cell_len(line) <= width for line in result.lines)
