from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgresql_server import MISSING, PostgreSQLServer
from wherefrom.stores.postgresql.store import PostgreSQLStore


@pytest.fixture
def server(postgresql_server: PostgreSQLServer | None) -> PostgreSQLServer:
    if postgresql_server is None:
        pytest.skip(MISSING)
    return postgresql_server


@pytest.fixture
def url(server: PostgreSQLServer) -> Iterator[str]:
    """A schema without tables, whatever other tests have released."""
    yield (url := server.url(schema=f"own_{next(server.numbers)}"))
    with server.connect() as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {url.rpartition('=')[2]} CASCADE".encode())


@pytest.fixture
def store(url: str) -> Iterator[PostgreSQLStore]:
    store = PostgreSQLStore(url)
    yield store
    store.close()
