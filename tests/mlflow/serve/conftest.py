"""A store, the application over it, and, where there is one, MLflow's own client reading it over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from wherefrom.mlflow.serve import make_application
from wherefrom.stores import Store, open_store
from wherefrom.web.auth import LOOPBACK, Access

from ..server import MISSING, clean_environment, free_port, mlflow_python


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'wherefrom.db'}")
    yield store
    store.close()


@pytest.fixture
async def http(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, which any of its faults reaches as a 500."""
    transport = httpx.ASGITransport(
        make_application(store, Access(hosts=LOOPBACK)), raise_app_exceptions=False
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8500") as client:
        yield client


class MLflowClient:
    """MLflow's client in another process, with the methods that are called here."""

    def __init__(self, url: str) -> None:
        python = mlflow_python()
        if python is None:
            pytest.skip(MISSING)
        script = Path(__file__).with_name("asking.py")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(script), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment() | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            text=True,
        )

    def ask(self, name: str, /, **keywords: Any) -> dict[str, Any]:
        """The answer, with what was found, or the error with its code and message."""
        return self.ask_with({}, name, **keywords)

    def ask_with(self, environment: dict[str, str], name: str, /, **keywords: Any) -> dict[str, Any]:
        """The answer in a process that has these variables too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, keywords, environment]) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def found(self, name: str, /, **keywords: Any) -> Any:
        """What was found."""
        answer = self.ask(name, **keywords)
        assert "found" in answer, answer
        return answer["found"]

    def close(self) -> None:
        self._process.communicate(timeout=60)


@contextmanager
def serving(url: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """``wherefrom serve`` over a store, and its own address."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "wherefrom", "serve", "--port", str(port), "--store", url],
        env=os.environ | (environment or {}),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert "set_tracking_uri" in process.stderr.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=20)
        assert "Traceback" not in rest, rest


@contextmanager
def reading(url: str) -> Iterator[MLflowClient]:
    """MLflow's client, told to read here."""
    client = MLflowClient(url)
    try:
        yield client
    finally:
        client.close()
