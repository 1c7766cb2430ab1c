from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.engines import NewUrl, new_store
from wherefrom.client import TraceClient
from wherefrom.stores import Store

from . import recorded


@pytest.fixture(scope="session")
def recorded_client(new_url: NewUrl) -> Iterator[TraceClient]:
    """Reads the traces that MLflow's answers were recorded on."""
    with new_store(new_url) as store:
        store.write(list(recorded.load_traces().values()))
        yield TraceClient(store)


@pytest.fixture
def store(new_url: NewUrl) -> Iterator[Store]:
    """A store of the test's own."""
    with new_store(new_url) as store:
        yield store


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if recorded.agreed:
        counts = ", ".join(f"{count} {tier}" for tier, count in sorted(recorded.agreed.items()))
        terminalreporter.write_line(f"recorded MLflow cases that agree: {counts}")
