"""A page reads one moment of the store, however long it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from wherefrom.stores import Selection, Snapshot, Store
from wherefrom.web.application import make_application
from wherefrom.web.auth import Access
from wherefrom.web.pages import PAGES

from .conftest import asking, get
from .samples import START, make_trace, make_traces

TRACE = make_trace(1)


class Busy:
    """A store into which another process writes as soon as a snapshot is read."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.snapshots = 0

    @contextmanager
    def snapshot(self, **options: Any) -> Iterator[Snapshot]:
        self.snapshots += 1
        with self.store.snapshot(**options) as snapshot:
            assert snapshot.bounds(Selection()) is not None
            self.store.write([make_trace(100 + self.snapshots, failed=True, version="9.9")])
            yield snapshot

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@pytest.fixture
def busy(store: Store) -> Any:
    store.write([*make_traces(3), make_trace(4, version="1.2.0")])
    return Busy(store)


@pytest.mark.parametrize("page", [page for page in PAGES if page.template], ids=lambda page: page.path)
async def test_a_page_opens_one_snapshot(busy: Any, page: Any) -> None:
    """Also where its parts are read one after the other."""
    query = {"id": "s-1"} if page.path == "/session" else {}
    path = page.path.format(trace_id=TRACE.info.trace_id, span_id=TRACE.data.spans[0].span_id)
    async with asking(make_application(busy, Access())) as client:
        await get(client, path, **query)
    assert busy.snapshots == 1


async def test_a_twin_opens_one_snapshot(busy: Any) -> None:
    """As its page does."""
    async with asking(make_application(busy, Access())) as client:
        for path in ("/traces.json", "/compare.json", "/sessions.json", "/deployments.json", "/status.json"):
            busy.snapshots = 0
            assert (await client.get(path)).status_code == 200
            assert busy.snapshots == 1, path


async def test_list_histogram_facets_and_cursor_are_of_one_moment(busy: Any) -> None:
    """What is stored while the page is read is in none of them, and is the next change."""
    async with asking(make_application(busy, Access())) as client:
        page = await get(client, "/traces", since=START, until=START + 3_600_000)
        button = page.one("button", id="live").attributes
        asked = {"cursor": button["data-cursor"]}
        changes = (await client.get("/changes.json", params=asked)).json()["traces"]
    assert len(page.one("tbody", id="rows").all("tr")) == 4
    chart = page.one("section", class_="over-time")
    assert "4 requests" in chart.one("figcaption").text
    assert "0 errors" in chart.one("figcaption").text
    assert "9.9" not in page.one("aside", class_="facets").text
    assert [trace["trace_id"] for trace in changes] == [make_trace(101).info.trace_id]
