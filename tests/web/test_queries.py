"""What a query of the page costs the app in which it is mounted: real servers, and clients that leave."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack

import httpx
import pytest

import wherefrom.web
from wherefrom.stores import Store, open_store
from wherefrom.web.application import SECONDS_FOR_A_PART, make_application
from wherefrom.web.auth import Access
from wherefrom.web.queries import QueryPool

from .conftest import asking, get, read
from .costly import COSTLY, COSTLY_ALIKE, asked, fill, mounting, serving, until

SENTENCE = "took longer than {} s: narrow the time range or the filter"


@pytest.fixture(scope="module")
def costly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('costly') / 'wherefrom.db'}")
    fill(store)
    yield store
    store.close()


async def test_abandoned_queries_starve_neither_the_app_nor_the_page(costly: Store) -> None:
    """45 clients send costly requests and disconnect: the app's routes respond meanwhile, then the page."""
    with serving(mounting(wherefrom.web.app(costly, allow=lambda _: True))) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            async with AsyncExitStack() as stack:
                for _ in range(45):
                    await stack.enter_async_context(asked(port, "/wherefrom/traces", filter=COSTLY))
                await asyncio.sleep(0.5)
                started = time.monotonic()
                for _ in range(5):
                    assert (await client.get("/sync")).status_code == 200
                assert time.monotonic() - started < 8
            started = time.monotonic()
            assert (await client.get("/sync")).status_code == 200
            while (await client.get("/wherefrom/traces.json")).status_code == 503:
                assert time.monotonic() - started < 5
            assert (await client.get("/wherefrom/traces")).status_code == 200
            assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "path", ["/traces", "/traces.json", "/facets.json", "/compare", "/compare.svg", "/sessions"]
)
async def test_a_query_ends_when_its_reader_leaves(
    costly: Store, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Long before it would have found what it looks for; neither the app nor its server see an error."""
    pool = QueryPool(seconds=60)
    with serving(mounting(make_application(costly, Access(), pool))) as port:
        async with asked(port, f"/wherefrom{path}", filter=COSTLY):
            await until(lambda: pool.running == 1)
            await asyncio.sleep(0.3)
            assert pool.running == pool.admitted == 1
        assert await until(lambda: pool.running == pool.admitted == 0) < 2
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]


async def test_a_reader_that_leaves_while_waiting_makes_room(costly: Store) -> None:
    """A waiting client that disconnects is removed at once, and the next one is admitted."""
    pool = QueryPool(seconds=60, running=1, waiting=1)
    with serving(mounting(make_application(costly, Access(), pool))) as port:
        async with asked(port, "/wherefrom/traces.json", filter=COSTLY):
            await until(lambda: pool.running == 1)
            async with asked(port, "/wherefrom/traces.json"):
                await until(lambda: pool.admitted == 2)
            assert await until(lambda: pool.admitted == 1) < 1
        await until(lambda: pool.admitted == 0)


async def test_more_readers_than_connections_are_no_bug(costly: Store) -> None:
    """40 at once, each with a costly filter: some are cut, none fails."""
    pool = QueryPool(seconds=0.05, waiting=40)
    async with asking(make_application(costly, Access(), pool)) as client:
        answers = await asyncio.gather(
            *(client.get("/facets.json", params={"filter": COSTLY}) for _ in range(40))
        )
    assert Counter(answer.status_code for answer in answers) == {504: 40}


async def test_readers_beyond_the_limit_are_told_when_to_come_again(costly: Store) -> None:
    """503 with Retry-After, as a page and as JSON; static files and the login are not limited."""
    pool = QueryPool(seconds=1.5, running=1, waiting=0)
    async with asking(make_application(costly, Access(), pool)) as client:
        first = asyncio.create_task(client.get("/traces.json", params={"filter": COSTLY}))
        await until(lambda: pool.running == 1)
        page, twin = await client.get("/traces"), await client.get("/traces.json")
        assert page.status_code == twin.status_code == 503
        assert page.headers["retry-after"] == twin.headers["retry-after"] == "2"
        assert twin.json()["error"] == "busy"
        assert twin.json()["message"] in read(page.text).one("main").text
        assert (await client.get("/static/wherefrom.css")).status_code == 200
        assert (await first).status_code == 504
        assert (await client.get("/traces.json")).status_code == 200
    assert pool.admitted == 0


@pytest.mark.parametrize("filter_string", COSTLY_ALIKE)
async def test_a_twin_says_that_it_took_too_long(costly: Store, filter_string: str) -> None:
    """504 and a sentence, for every kind of filter that reads large values."""
    pool = QueryPool(seconds=0.1)
    async with asking(make_application(costly, Access(), pool)) as client:
        for path in ("/traces.json", "/histogram.json", "/facets.json", "/compare.json", "/sessions.json"):
            started = time.monotonic()
            answer = await client.get(path, params={"filter": filter_string})
            assert time.monotonic() - started < 3
            assert answer.status_code == 504
            assert answer.json()["error"] == "query_timeout"
            assert SENTENCE.format(0.1) in answer.json()["message"]


async def test_a_list_that_takes_too_long_leaves_the_rest_of_the_page(costly: Store) -> None:
    """The form and the other parts are shown: each part has its own deadline, and reports when it passes."""
    async with asking(make_application(costly, Access(), QueryPool(seconds=0.3))) as client:
        page = await get(client, "/traces", filter=COSTLY)
    assert page.one("input", id="filter").attributes["value"] == COSTLY
    for part in (
        page.one("section", class_="list"),
        page.one("section", class_="over-time"),
        page.one("aside", class_="facets"),
    ):
        assert SENTENCE.format(0.3) in part.text


async def test_parts_that_take_too_long_leave_the_list(costly: Store) -> None:
    """The first match is found at once, and shown; to count them all takes too long."""
    async with asking(make_application(costly, Access(), QueryPool(seconds=0.5))) as client:
        page = await get(client, "/traces", filter=COSTLY, size=1)
    found = page.one("section", class_="list")
    assert len(found.one("tbody", id="rows").all("tr")) == 1
    assert SENTENCE.format(0.5) not in found.text
    assert SENTENCE.format(0.5) in page.one("aside", class_="facets").text


@pytest.mark.parametrize("path", ["/compare", "/sessions"])
async def test_other_pages_say_so_below_their_form(costly: Store, path: str) -> None:
    """The form keeps the query, so that it can be narrowed."""
    async with asking(make_application(costly, Access(), QueryPool(seconds=0.3))) as client:
        page = await get(client, path, filter=COSTLY)
    assert page.one("input", name="filter").attributes["value"] == COSTLY
    assert SENTENCE.format(0.3) in page.one("main").text


async def test_downloads_say_so_too(costly: Store) -> None:
    """A picture that takes too long is no picture."""
    async with asking(make_application(costly, Access(), QueryPool(seconds=0.3))) as client:
        answer = await client.get("/compare.svg", params={"filter": COSTLY})
    assert answer.status_code == 504
    assert answer.json()["error"] == "query_timeout"


def test_the_page_has_two_seconds_for_a_part() -> None:
    """The documentation states this deadline."""
    assert SECONDS_FOR_A_PART == 2
