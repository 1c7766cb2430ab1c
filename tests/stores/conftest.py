from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import NewUrl, new_store
from wherefrom.stores import Store


@pytest.fixture
def store(new_url: NewUrl) -> Iterator[Store]:
    with new_store(new_url) as store:
        yield store
