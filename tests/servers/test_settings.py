"""Settings that cannot be used, on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from .processes import finish, running, start

APP = """
from fastapi import FastAPI
from wherefrom import TraceMiddleware

app = FastAPI()
app.add_middleware(TraceMiddleware)


@app.get("/")
def root() -> int:
    return 1
"""
SENTENCE = "WHEREFROM_SAMPLE_RATE='2' cannot be used: it takes a number from 0 to 1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "added.py").write_text(APP)
    return tmp_path


def test_a_server_does_not_start_on_them(folder: Path) -> None:
    """With ``add_middleware`` too uvicorn stops with exit code 3, and the log has the one sentence."""
    server = start(folder, "uvicorn", app="added:app", environ={"WHEREFROM_SAMPLE_RATE": "2"})
    try:
        assert server.process.wait(20) == 3
    finally:
        finish(server)
    assert server.output().count(SENTENCE) == 1
    assert "Traceback" not in server.output()


async def test_a_server_without_lifespan_answers_with_them(folder: Path) -> None:
    """Where nothing asks the app to start, each request fails by name instead of passing untraced."""
    server = start(folder, "uvicorn --lifespan off", app="added:app", environ={"WHEREFROM_SAMPLE_RATE": "2"})
    with running(server):
        assert (await server.get("/")).status == 500
    assert SENTENCE in server.output()


async def test_a_server_starts_on_usable_ones(folder: Path) -> None:
    """The same app with a rate that is one answers, and is traced."""
    server = start(folder, "uvicorn", app="added:app", environ={"WHEREFROM_SAMPLE_RATE": "1"})
    with running(server):
        answer = await server.get("/", {"X-Request-ID": "r-1"})
        assert (answer.status, answer.request_ids) == (200, ["r-1"])
        assert (await server.trace("r-1")).name == "GET /"
