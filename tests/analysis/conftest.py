from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import ENGINES, NewUrl, new_store
from wherefrom.stores import Store


@pytest.fixture(scope="session")
def new_url(request: pytest.FixtureRequest) -> NewUrl:
    """Of SQLite. ``tests/stores`` holds that snapshots answer alike; see ``every_engine``."""
    return ENGINES[getattr(request, "param", "sqlite")](request)


@pytest.fixture
def store(new_url: NewUrl) -> Iterator[Store]:
    with new_store(new_url) as store:
        yield store
