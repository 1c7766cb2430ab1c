"""Stores: where traces are written and read."""

from __future__ import annotations

from .base import Selection, Snapshot, Store
from .opening import open_store, resolve

__all__ = ["Selection", "Snapshot", "Store", "open_store", "resolve"]
