"""The Status page and its twin."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from typing import Any

import httpx

from wherefrom.process import ProcessReport, Stats, ledger
from wherefrom.stores import Store
from wherefrom.web.pages.status import make_remarks

from ..conftest import HOSTILE, get
from ..samples import START, make_traces


def now() -> int:
    return time.time_ns() // 1_000_000


def report(store: Store, pid: int, *, ago: int = 1000, retention: float | None = None, **counts: Any) -> None:
    queues = counts.pop("queues", {"SQLiteStore": 0})
    stats = Stats(**{"recorded": 10, "stored": 10, **counts})
    store.report(
        ProcessReport("web-1", pid, now() - 3_600_000, now() - ago - pid * 1000, stats, queues, retention)
    )


async def test_processes_tell_what_became_of_their_traces(client: httpx.AsyncClient, store: Store) -> None:
    report(store, 1, dropped={"queue_full": 3}, errors={"OTLPExporter": 2}, queues={"OTLPExporter": 7})
    report(store, 2, ago=2000, refused_headers={"X-User-ID": 1}, retention=30)
    page = await get(client, "/status")
    told = [one.text for one in page.one("section", class_="verdicts").all("p")]
    assert told == [
        "▲Problem: 3 dropped: the queue was full: the store or an exporter is too slow.",
        "▲Problem: OTLPExporter failed 2 times: see the log of the app.",
        "●1 value of X-User-ID ignored: empty, too long, or with control characters.",
    ]
    first, second = page.one("tbody").all("tr")
    assert "web-1 · 1" in first.text
    assert "queue_full 3" in first.text
    assert "OTLPExporter 7" in first.text
    assert "unlimited" in first.text
    assert "30 days" in second.text


async def test_all_well_is_said(client: httpx.AsyncClient, store: Store) -> None:
    report(store, 1)
    report(store, 2, ago=600_000)
    page = await get(client, "/status")
    (told,) = page.one("section", class_="verdicts").all("p")
    assert told.text == "✓2 processes recorded 20 traces in the last seven days and lost none."
    assert ["no recent report" in row.text for row in page.one("tbody").all("tr")] == [False, True]


async def test_the_twin_holds_the_sums_and_the_store(client: httpx.AsyncClient, store: Store) -> None:
    store.write(make_traces(3))
    report(store, 1, dropped={"queue_full": 3, "shutdown": 1}, queue_depth=2, queue_bytes=5000)
    report(store, 2, dropped={"queue_full": 4}, queue_depth=1)
    found = (await client.get("/status.json")).json()
    assert found["total"] == {
        "recorded": 20,
        "stored": 20,
        "dropped": {"queue_full": 7, "shutdown": 1},
        "refused_headers": {},
        "errors": {},
        "queue_depth": 3,
        "queue_bytes": 5000,
    }
    assert [one["report"]["pid"] for one in found["processes"]] == [1, 2]
    assert (found["store"]["traces"], found["store"]["oldest"]) == (3, START + 1000)
    assert found["remarks"][0]["kind"] == "trouble"


async def test_the_process_that_shows_the_page_counts_up_to_now(
    client: httpx.AsyncClient, store: Store
) -> None:
    began = now()
    own = ProcessReport(
        socket.gethostname(), os.getpid(), now() - 3_600_000, now() - 600_000, Stats(recorded=1)
    )
    store.report(own)
    ledger.recorded = 12
    ledger.stored(11)
    (found,) = (await client.get("/status.json")).json()["processes"]
    assert (found["report"]["stats"]["recorded"], found["report"]["stats"]["stored"]) == (12, 11)
    assert found["report"]["reported"] >= began
    assert not found["is_silent"]


async def test_reasons_of_newer_processes_are_told_as_they_are(
    client: httpx.AsyncClient, store: Store
) -> None:
    report(store, 1, dropped={"eaten_by_grue": 1})
    assert "1 dropped: eaten by grue." in (await get(client, "/status")).text


def test_a_disk_that_is_nearly_full_is_trouble(store: Store) -> None:
    with store.snapshot() as snapshot:
        state = replace(snapshot.state(), disk_free=12_000_000)
    assert [(one.kind, one.text) for one in make_remarks(state, Stats(), [])] == [
        ("trouble", "The disk of the store has 12.0 MB free.")
    ]


async def test_hostile_names_are_text(client: httpx.AsyncClient, store: Store) -> None:
    value = HOSTILE.replace("\x00", "")
    store.report(
        ProcessReport(value, 1, now(), now(), Stats(errors={value: 1}, dropped={value: 1}), {value: 1})
    )
    page = await get(client, "/status")
    assert not page.all("img")
    assert "\u202e" not in page.text
    assert "<script>alert(1)</script>" in page.one("table").text


async def test_without_processes_it_says_what_to_do(client: httpx.AsyncClient, store: Store) -> None:
    page = await get(client, "/status")
    assert "add_middleware" in page.one("div", class_="empty").text
    assert page.one("dl").text.count("none") == 2
