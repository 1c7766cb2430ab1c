from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import NewUrl
from wherefrom.stores import Store, open_store


@pytest.fixture
def store(new_url: NewUrl) -> Iterator[Store]:
    store = open_store(url := new_url())
    yield store
    store.close()
    new_url.release(url)
