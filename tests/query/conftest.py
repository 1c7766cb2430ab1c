from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from tests.engines import NewUrl
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
def statements(store: Any) -> Iterator[list[tuple[str, Any]]]:
    """The SQL that reading ``store`` executes, with its parameters; a store in SQL has an ``engine``."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", note)
    yield seen
    event.remove(store.engine, "before_cursor_execute", note)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if recorded.agreed:
        counts = ", ".join(f"{count} {tier}" for tier, count in sorted(recorded.agreed.items()))
        terminalreporter.write_line(f"recorded MLflow cases that agree: {counts}")
