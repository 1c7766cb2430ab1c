"""Traces that start outside a request go where the test sees them, and into no file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wherefrom import MemorySink, Settings
from wherefrom.model import Source
from wherefrom.process import process
from wherefrom.tracing.recorder import Recorder

from ..otel.telemetry import Telemetry


@pytest.fixture(autouse=True)
def outside() -> Iterator[MemorySink]:
    """Where traces go that start outside a request."""
    sink, before = MemorySink(), process.default_recorder
    process.default_recorder = Recorder(Settings(store="none"), Source({}), sink)
    yield sink
    process.default_recorder = before


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """An OpenTelemetry provider of the test's own, and the bridge to it."""
    yield Telemetry()
    process.bridges = ()
