"""Sinks: anything with ``write(traces)``. They compose like ASGI apps: a queue is a sink around a sink."""

from __future__ import annotations

from .base import FanOut, MemorySink, Sink
from .lines import ConsoleSink, JsonLinesSink, open_exporter
from .queue import BATCH_SIZE, BackgroundSink, Budget

__all__ = [
    "BATCH_SIZE",
    "BackgroundSink",
    "Budget",
    "ConsoleSink",
    "FanOut",
    "JsonLinesSink",
    "MemorySink",
    "Sink",
    "open_exporter",
]
