"""Many questions to one snapshot, answered by ids: no trace is read, so thousands take seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wherefrom.query import parse_filter
from wherefrom.query.order import parse_order
from wherefrom.stores import Selection, Snapshot


class Asker:
    """Asks for some of the traces with ``trace_ids``, in these experiments."""

    def __init__(
        self, snapshot: Snapshot, trace_ids: Sequence[str], experiments: tuple[str, ...] | None = None
    ) -> None:
        self._snapshot = snapshot
        self._experiments = experiments
        self._ids: dict[Any, str] = dict(zip(snapshot.find(trace_ids), trace_ids, strict=True))

    def ids(
        self,
        text: str | None = None,
        order: list[str] | None = None,
        limit: int = 500,
        experiments: tuple[str, ...] | None = None,
    ) -> list[str]:
        """The ids of the traces that a filter selects, in an order; ``experiments`` in place of its own."""
        selection = Selection(None if text is None else parse_filter(text), experiments or self._experiments)
        page = self._snapshot.search(selection, parse_order(order), limit)
        return [self._ids[key] for key in page.keys]

    def pages(self, order: list[str], size: int) -> list[str]:
        """The ids of all traces, read in pages of one size."""
        keys, after, found = parse_order(order), None, list[str]()
        while True:
            page = self._snapshot.search(Selection(None, self._experiments), keys, size, after)
            found += [self._ids[key] for key in page.keys]
            if page.after is None:
                return found
            after = page.after
