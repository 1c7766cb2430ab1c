"""The pytest plugin, in test runs of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APP = """
from fastapi import FastAPI
import wherefrom

app = FastAPI()
app.add_middleware(wherefrom.TraceMiddleware)


@wherefrom.trace
def answer():
    return 42


@app.get("/{name}")
def hello(name: str):
    return answer()
"""
HEADER = """
import httpx
import pytest
import wherefrom
from app import answer, app


def get(path, to=app, **headers):
    import asyncio

    async def send():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(to), base_url="http://test") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(send())

"""


def run(folder: Path, tests: str, **environ: str) -> str:
    """The output of pytest on some tests, which pass."""
    (folder / "app.py").write_text(APP)
    (folder / "test_app.py").write_text(HEADER + tests)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("WHEREFROM_", "COV_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "wherefrom.integrations.pytest", "-W", "error"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=folder,
        env=own | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("store", ["", "none", "sqlite:///elsewhere.db"])
def test_the_traces_of_a_test_are_a_list(tmp_path: Path, store: str) -> None:
    """Of an app that was made before, whatever its store is; the next test starts with none."""
    run(
        tmp_path,
        """
def test_one(wherefrom_traces):
    get("/ada", **{"X-User-ID": "ada"})
    (trace,) = wherefrom_traces
    assert trace.info.name == "GET /{name}"
    assert trace.info.trace_metadata["mlflow.trace.user"] == "ada"
    assert [span.name for span in trace.data.spans] == ["GET /{name}", "answer"]
    get("/bob")
    assert len(wherefrom_traces) == 2


def test_two(wherefrom_traces):
    assert wherefrom_traces == []
    get("/eve")
    assert len(wherefrom_traces) == 1
""",
        **({"WHEREFROM_STORE": store} if store else {}),
    )
    assert not list(tmp_path.rglob("*.db"))


def test_decorated_functions_and_other_apps_count_too(tmp_path: Path) -> None:
    """Outside of requests, and of an app that the test makes, with a sink of its own or without."""
    run(
        tmp_path,
        """
def test_functions(wherefrom_traces):
    answer()
    with wherefrom.start_span("job"):
        answer()
    assert [trace.info.name for trace in wherefrom_traces] == ["answer", "job"]


def test_a_sink_of_the_test_itself(wherefrom_traces):
    sink = wherefrom.MemorySink()
    get("/", wherefrom.TraceMiddleware(app.router, sink=sink))
    assert len(wherefrom_traces) == 1
    assert len(sink.traces) == 1


def test_an_app_that_is_switched_off(wherefrom_traces):
    settings = wherefrom.Settings(enabled=False)
    get("/", wherefrom.TraceMiddleware(app.router, settings=settings))
    assert wherefrom_traces == []


def test_an_exception(wherefrom_traces):
    async def broken(scope, receive, send):
        raise ValueError("no")

    with pytest.raises(ValueError):
        get("/", wherefrom.TraceMiddleware(broken))
    (trace,) = wherefrom_traces
    assert trace.info.state == "ERROR"
""",
    )


def test_traces_go_to_the_store_again_after_the_test(tmp_path: Path) -> None:
    """A test without the fixture records as the app does."""
    run(
        tmp_path,
        """
def test_with_the_fixture(wherefrom_traces):
    get("/with")


def test_without_it():
    get("/without")
    wherefrom.flush()
    (trace,) = wherefrom.search_traces()
    assert trace.root.attributes["url.path"] == "/without"
""",
    )


def test_pytest_finds_the_plugin() -> None:
    """It is an entry point, named after the module so that ``-p`` does not load it twice."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = "wherefrom.integrations.pytest"
    assert project["entry-points"]["pytest11"] == {name: name}


def test_the_plugin_imports_little(tmp_path: Path) -> None:
    """It is loaded in every test run of the environment."""
    code = "import sys, pytest, wherefrom.integrations.pytest; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"sqlalchemy", "fastapi", "starlette", "httpx"} & set(found.split())
