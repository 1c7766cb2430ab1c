from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wherefrom.stores import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'traces.db'}")
    yield store
    store.close()
