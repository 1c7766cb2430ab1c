"""The Compare page, its twin and its pictures."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

import httpx
import pytest

from wherefrom import TraceState, keys
from wherefrom.model import Assessment
from wherefrom.stores import Store

from ..conftest import HOSTILE, get, read
from ..samples import START, make_traces


def write_releases(store: Store, *values: str) -> None:
    for place, value in enumerate(values or ("1.0.0", "1.1.0")):
        traces = make_traces(60, version=value, failed=place == 1)
        for number, trace in enumerate(traces):
            trace.info.trace_id = f"tr-{place * 1000 + number:032x}"
            trace.info.request_time += place * 60_000
            for span in trace.data.spans:
                span.trace_id = trace.info.trace_id
        store.write(traces)


async def test_the_page_tells_which_is_worse_and_how_sure_that_is(
    client: httpx.AsyncClient, store: Store
) -> None:
    write_releases(store)
    page = await get(client, "/compare")
    verdicts = [one.text for one in page.one("section", class_="verdicts").all("p", class_="verdict")]
    assert len(verdicts) == 1
    assert "1.1.0 is worse than 1.0.0: error rate 100.0 % against 0.0 %" in verdicts[0]
    table = page.one("table")
    assert "120 traces" in table.one("caption").text
    rows = table.one("tbody").all("tr")
    assert [row.all("th")[0].text for row in rows] == ["1.0.0", "1.1.0"]
    assert "baseline" in rows[0].text
    assert "▲ worse" in rows[1].text
    assert "94 % to 100 %" in rows[1].text  # the lower end of the Wilson interval of 60 of 60
    assert len(page.one("div", class_="charts").all("svg", class_="chart")) == 2


async def test_values_bars_and_deployments_lead_to_their_traces(
    client: httpx.AsyncClient, store: Store
) -> None:
    write_releases(store)
    page = await get(client, "/compare", filter="status != 'IN_PROGRESS'")
    links = [
        one.attributes["href"]
        for one in page.one("main").all("a")
        if one.attributes["href"].startswith("/traces")
    ]
    assert len(links) >= 8
    for link in links:
        answer = await client.get(link)
        assert answer.status_code == 200
        assert "No trace here" not in answer.text, link
    query = parse_qs(urlsplit(links[0]).query)
    assert query["filter"] == ["status != 'IN_PROGRESS' AND metadata.app_version = '1.0.0'"]


async def test_the_twin_holds_what_the_page_shows(client: httpx.AsyncClient, store: Store) -> None:
    write_releases(store)
    found = (await client.get("/compare.json")).json()
    assert found["headline"] == "1.1.0 is worse than 1.0.0"
    assert [row["verdict"] for row in found["comparison"]["rows"]] == [None, "worse"]
    assert found["comparison"]["rows"][1]["filter"] == "metadata.app_version = '1.1.0'"
    assert found["until"] - found["since"] == 86_400_000
    assert {bucket["value"] for bucket in found["timeline"]["buckets"]} == {"1.0.0", "1.1.0"}


async def test_the_page_may_be_looked_at_again_and_again(client: httpx.AsyncClient, store: Store) -> None:
    """Its tests are sequential unless one look is asked for, and the page tells which were used."""
    write_releases(store)
    ends, notes = [], []
    for query in ({}, {"sequential": "false"}):
        found = (await client.get("/compare.json", params=query)).json()["comparison"]
        assert found["sequential"] is (not query)
        ends.append(found["rows"][1]["error_difference"]["interval"]["low"])
        notes.append((await get(client, "/compare", **query)).one("main").all("p", class_="note")[-1])
    assert 0 < ends[0] < ends[1] < 1
    assert [note.text.count("The tests are sequential") for note in notes] == [1, 0]
    links = [note.one("a").attributes["href"] for note in notes]
    assert links == ["/compare?sequential=false", "/compare"]


async def test_tokens_and_feedback_are_means_with_their_change(
    client: httpx.AsyncClient, store: Store
) -> None:
    for place, version in enumerate(("1.0", "1.1")):
        traces = make_traces(40, version=version)
        for number, trace in enumerate(traces):
            trace.info.trace_id = f"tr-{place * 100 + number:032x}"
            tokens = 50 + (number + place) % 3
            trace.info.trace_metadata[keys.TOKEN_USAGE] = f'{{"total_tokens": {tokens}}}'
            of, liked = trace.info.trace_id, number % 4 > 0
            trace.info.assessments = [
                Assessment(trace_id=of, name="<b>ok</b>", value=liked, assessment_id="a")
            ]
            for span in trace.data.spans:
                span.trace_id = trace.info.trace_id
        store.write(traces)
    table = (await get(client, "/compare")).all("table")[1]
    assert [one.text for one in table.one("tbody").all("td")][:2] == ["51.0 ", "75.0 % "]
    assert "+0 %, 95 % CI -2 to 2" in table.one("tbody").all("td")[2].text
    assert "feedback.<b>ok</b>" in table.text
    rows = (await client.get("/compare.json")).json()["comparison"]["rows"]
    assert rows[1]["amounts"][0]["difference"]["mean"] == pytest.approx(51.0)
    assert rows[1]["amounts"][1]["measure"] == "feedback.<b>ok</b>"


async def test_any_value_can_be_the_baseline(client: httpx.AsyncClient, store: Store) -> None:
    write_releases(store)
    page = await get(client, "/compare", baseline="1.1.0")
    rows = page.one("tbody").all("tr")
    assert "▼ better" in rows[0].text
    link = rows[0].one("a", class_="note").attributes["href"]
    assert parse_qs(urlsplit(link).query)["baseline"] == ["1.0.0"]


async def test_the_picture_can_be_taken_along(client: httpx.AsyncClient, store: Store) -> None:
    write_releases(store)
    page = await get(client, "/compare", since=str(START))
    svg, png = (one.attributes["href"] for one in page.one("p", class_="actions").all("a", download=""))
    drawn = await client.get(svg)
    assert drawn.headers["content-type"] == "image/svg+xml"
    assert drawn.headers["content-disposition"] == 'attachment; filename="compare-app_version.svg"'
    assert "1.1.0 is worse than 1.0.0" in (ET.fromstring(drawn.text)[0].text or "")
    assert "2026-09-21" in drawn.text
    assert "href" not in drawn.text
    rendered = await client.get(png)
    assert rendered.headers["content-type"] == "image/png"
    assert rendered.content.startswith(b"\x89PNG")


async def test_hostile_values_are_text_everywhere(client: httpx.AsyncClient, store: Store) -> None:
    value = HOSTILE.replace("\x00", "")
    write_releases(store, "1.0.0", value)
    page = await get(client, "/compare")
    assert all(one.attributes["src"].startswith("/static/") for one in page.all("script"))
    assert not page.all("img")
    assert "<script>alert(1)</script>" in page.one("table").text
    assert "\u202e" not in page.text
    await get(
        client,
        "/compare",
        by="name",
        filter=f"metadata.app_version = '{value.replace(chr(39), chr(39) * 2)}'",
    )
    drawn = await client.get("/compare.svg", params={"by": "app_version"})
    assert not list(ET.fromstring(drawn.text).iter("{http://www.w3.org/2000/svg}script"))


async def test_a_file_name_holds_nothing_that_could_end_it(client: httpx.AsyncClient, store: Store) -> None:
    write_releases(store)
    answer = await client.get("/compare.svg", params={"by": "metadata.`app_version`"})
    assert answer.headers["content-disposition"] == 'attachment; filename="compare-metadata.-app_version.svg"'


async def test_what_cannot_be_asked_is_said_in_place(client: httpx.AsyncClient, store: Store) -> None:
    write_releases(store)
    page = await get(client, "/compare", filter="statsu = 'OK'")
    assert "statsu = 'OK'" in page.one("div", class_="failed").text
    assert len(page.all("form", class_="asking")) == 1
    assert (await client.get("/compare.json", params={"filter": "statsu = 'OK'"})).status_code == 400
    assert (await client.get("/compare.svg", params={"baseline": "9"})).status_code == 400


async def test_nothing_to_compare_says_what_to_do(client: httpx.AsyncClient, store: Store) -> None:
    assert "Widen the time range" in (await get(client, "/compare")).one("div", class_="empty").text
    write_releases(store)
    page = await get(client, "/compare", by="mlflow.modelId")
    assert "120 traces" in page.one("div", class_="empty").text
    page = await get(client, "/compare", by="region")
    assert "only one value" in page.one("section", class_="verdicts").text


async def test_traces_that_still_run_have_no_latency(client: httpx.AsyncClient, store: Store) -> None:
    store.write(make_traces(3, execution_duration=None, spans=[], state=TraceState.IN_PROGRESS))
    page = await get(client, "/compare")
    assert "no durations" in page.one("tbody").text
    assert len(page.one("div", class_="charts").all("svg", class_="chart")) == 1


async def test_what_no_filter_asks_for_leads_nowhere(client: httpx.AsyncClient, store: Store) -> None:
    write_releases(store)
    page = read((await client.get("/compare", params={"by": "experiment"})).text)
    assert not page.one("tbody").all("a")
    assert not [one for one in page.one("main").all("a") if "status" in one.attributes["href"]]
