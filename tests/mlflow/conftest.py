"""A server with programmed failures, and exporters and queues that send to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from wherefrom.mlflow.exporter import MLflowExporter
from wherefrom.sinks import BackgroundSink

from ..conftest import MakeTrace
from .stub import StubServer

__all__ = ["MakeMLflowQueue", "MakeTrace"]

MakeMLflowQueue = Callable[..., BackgroundSink]


@pytest.fixture
def stub() -> Iterator[StubServer]:
    stub = StubServer()
    yield stub
    stub.close()


@pytest.fixture
def make_mlflow_queue(stub: StubServer) -> Iterator[MakeMLflowQueue]:
    """Makes a queue before an exporter to the stub, or to ``url``; keywords are those of the exporter."""
    with ExitStack() as stack:

        def make(url: str | None = None, *, interval_ms: int = 1, **options: Any) -> BackgroundSink:
            exporter = MLflowExporter(url or stub.url, **{"environ": {}, **options})
            stack.callback(exporter.close)
            queue = BackgroundSink(exporter, flush_interval_ms=interval_ms, batch_size=exporter.batch_size)
            stack.callback(queue.close, 0.1)
            return queue

        yield make
