"""The state of every store."""

from __future__ import annotations

from tests.analysis.traffic import START, make_trace
from wherefrom.stores import Store
from wherefrom.stores.base import StoreState


def read_state(store: Store) -> StoreState:
    with store.snapshot() as snapshot:
        return snapshot.state()


def test_what_a_store_holds(store: Store) -> None:
    """Counts are exact; sizes are in bytes."""
    store.write([make_trace(n, version=f"1.{n % 2}", experiment=f"e{n % 3}") for n in range(6)])
    found = read_state(store)
    assert store.url.startswith(found.kind)
    assert (found.traces, found.sources, found.experiments) == (6, 2, 3)
    assert (found.oldest, found.newest) == (START, START + 5000)
    assert found.size > 0


def test_an_empty_store_has_no_times(store: Store) -> None:
    found = read_state(store)
    assert (found.traces, found.oldest, found.newest) == (0, None, None)
