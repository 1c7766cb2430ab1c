"""The state of a store, as a page shows it: how large it is, what it holds, and from when to when."""

from __future__ import annotations

from ..stores import Store
from ..stores.base import StoreState as State
from .scope import opened

__all__ = ["State", "read_state"]


def read_state(store: Store | str | None = None) -> State:
    """The state now.

    Raises:
        StoreError: the store cannot be opened or read.
    """
    with opened(store) as (snapshot, _):
        return snapshot.state()
