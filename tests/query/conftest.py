from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.engines import NewUrl
from tests.sql import noted
from wherefrom.client import TraceClient
from wherefrom.stores import Store, open_store

from . import recorded


@pytest.fixture(scope="session")
def recorded_client(new_url: NewUrl) -> Iterator[TraceClient]:
    """Reads the traces that MLflow's answers were recorded on."""
    store = open_store(new_url())
    store.write(list(recorded.load_traces().values()))
    yield TraceClient(store)
    store.close()


@pytest.fixture
def store(new_url: NewUrl) -> Iterator[Store]:
    """A store of the test's own."""
    store = open_store(url := new_url())
    yield store
    store.close()
    new_url.release(url)


@pytest.fixture
def statements(store: Store) -> Iterator[list[tuple[str, Any]]]:
    """The SQL that reading ``store`` executes, with its parameters."""
    with noted(store) as seen:
        yield seen


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if recorded.agreed:
        counts = ", ".join(f"{count} {tier}" for tier, count in sorted(recorded.agreed.items()))
        terminalreporter.write_line(f"recorded MLflow cases that agree: {counts}")
