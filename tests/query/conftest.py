from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from wherefrom.client import TraceClient
from wherefrom.stores import Store, open_store
from wherefrom.stores.sqlite.store import SQLiteStore

from . import recorded


@pytest.fixture(scope="session", params=["sqlite"])
def empty_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store of each kind; another dialect is another parameter."""
    path: Path = tmp_path_factory.mktemp("query")
    store = open_store(f"{request.param}:///{path / 'traces.db'}")
    yield store
    store.close()


@pytest.fixture(scope="session")
def recorded_client(empty_store: Store) -> TraceClient:
    """Reads the traces that MLflow's answers were recorded on."""
    empty_store.write(list(recorded.load_traces().values()))
    return TraceClient(empty_store)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """A store of the test's own."""
    store = SQLiteStore(tmp_path / "traces.db")
    yield store
    store.close()


@pytest.fixture
def statements(store: SQLiteStore) -> Iterator[list[tuple[str, Any]]]:
    """The SQL that reading ``store`` executes, with its parameters."""
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
