"""A receiver, and exporters that send to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from wherefrom import Trace
from wherefrom.exporters import OTLPExporter
from wherefrom.sinks import BackgroundSink

from .receiver import Receiver

MakeTrace = Callable[..., Trace]
MakeExporter = Callable[..., OTLPExporter]
MakeQueue = Callable[..., BackgroundSink]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def make_exporter(receiver: Receiver) -> Iterator[MakeExporter]:
    """Makes an exporter to the receiver, untouched by the environment; keywords are its own."""
    with ExitStack() as stack:

        def make(url: str | None = None, **options: Any) -> OTLPExporter:
            exporter = OTLPExporter(url or receiver.url, **{"environ": {}, **options})
            stack.callback(exporter.close)
            return exporter

        yield make


@pytest.fixture
def make_queue(make_exporter: MakeExporter) -> Iterator[MakeQueue]:
    """Makes a queue before such an exporter: with a long interval, the writer waits for the flush."""
    with ExitStack() as stack:

        def make(url: str | None = None, *, interval_ms: int = 1, **options: Any) -> BackgroundSink:
            queue = BackgroundSink(make_exporter(url, **options), flush_interval_ms=interval_ms)
            stack.callback(queue.close, 0.1)
            return queue

        yield make
