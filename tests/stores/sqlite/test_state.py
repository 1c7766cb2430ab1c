"""The state of a store."""

from __future__ import annotations

from pathlib import Path

from tests.analysis.traffic import START, make_trace
from wherefrom.stores import Store, resolve
from wherefrom.stores.base import StoreState
from wherefrom.stores.sql.schema import SCHEMA_VERSION


def read_state(store: Store | str) -> StoreState:
    with resolve(store) as opened, opened.snapshot() as snapshot:
        return snapshot.state()


def test_what_a_store_holds(store: Store, tmp_path: Path) -> None:
    store.write([make_trace(n, version=f"1.{n % 2}", experiment=f"e{n % 3}") for n in range(6)])
    found = read_state(store)
    assert (found.kind, found.location) == ("sqlite", str(tmp_path / "traces.db"))
    assert (found.traces, found.sources, found.experiments) == (6, 2, 3)
    assert (found.oldest, found.newest) == (START, START + 5000)
    assert found.schema_version == SCHEMA_VERSION
    sizes = [path.stat().st_size for path in tmp_path.iterdir() if path.suffix in {".db", ".db-wal"}]
    assert found.size == sum(sizes)
    assert found.free == 0
    assert found.disk_free is not None
    assert found.disk_free > 0


def test_an_empty_store_has_no_times(store: Store) -> None:
    found = read_state(store)
    assert (found.traces, found.oldest, found.newest) == (0, None, None)


def test_a_store_may_be_named_by_its_url(store: Store, tmp_path: Path) -> None:
    store.write([make_trace(0)])
    found = read_state(f"sqlite:///{tmp_path / 'traces.db'}")
    assert found.traces == 1
    assert "traces.db" in found.location
