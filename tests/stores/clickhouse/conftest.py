from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import ENGINES, NewUrl
from wherefrom.stores.clickhouse.store import ClickHouseStore


@pytest.fixture(scope="session")
def new_clickhouse_url(request: pytest.FixtureRequest) -> NewUrl:
    return ENGINES["clickhouse"](request)


@pytest.fixture
def store(new_clickhouse_url: NewUrl) -> Iterator[ClickHouseStore]:
    store = ClickHouseStore(url := new_clickhouse_url())
    yield store
    store.close()
    new_clickhouse_url.release(url)
