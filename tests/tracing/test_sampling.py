"""Which requests are kept: by rate, by route, and because they failed or were slow."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

import wherefrom
from wherefrom import MemorySink, Settings, TraceMiddleware, start_span, trace, update_current_trace
from wherefrom._ids import format_ids, new_random
from wherefrom.tracing.sampling import Sampler


def build() -> FastAPI:
    app = FastAPI()

    @app.get("/ok")
    async def fine() -> None: ...

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError("boom")

    @app.get("/said")
    async def said() -> None:
        update_current_trace(state="ERROR")

    @app.get("/slow")
    async def slow() -> None:
        await asyncio.sleep(0.15)

    @app.get("/items/{item}")
    async def item(item: str) -> None: ...

    return app


async def kept(sink: MemorySink, *paths: str, times: int = 1, **settings: Any) -> Counter[str]:
    """How many traces of each path are kept."""
    middleware = TraceMiddleware(build(), sink=sink, settings=Settings(store="none", **settings))
    transport = httpx.ASGITransport(middleware, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        for _ in range(times):
            for path in paths:
                response = await http.get(path)
                assert response.headers["x-request-id"]
    return Counter(str(trace.root.attributes["url.path"]) for trace in sink.traces if trace.root)


ALL = ("/ok", "/fails", "/said", "/slow")


@pytest.mark.parametrize(
    ("settings", "paths"),
    [
        ({}, set(ALL)),
        ({"sample_rate": 0}, {"/fails", "/said"}),
        ({"sample_rate": 0, "keep_errors": False}, set()),
        ({"sample_rate": 0, "keep_errors": False, "keep_slower_than_ms": 100}, {"/slow"}),
        ({"sample_rate": 0, "keep_slower_than_ms": 100}, {"/fails", "/said", "/slow"}),
        ({"sample_rate": 0, "keep_errors": False, "sample_routes": {"/ok": 1}}, {"/ok"}),
        ({"sample_routes": {"/ok": 0}}, {"/fails", "/said", "/slow"}),
        ({"sample_routes": {"/ok": 0, "/fails": 0}, "keep_errors": False}, {"/said", "/slow"}),
    ],
)
async def test_what_is_kept(sink: MemorySink, settings: dict[str, Any], paths: set[str]) -> None:
    """The head rate, the route's rate, and then the tail: errors and slow requests."""
    assert set(await kept(sink, *ALL, **settings)) == paths
    assert wherefrom.stats().recorded == len(paths)


async def test_rates_are_of_templates(sink: MemorySink) -> None:
    """A route's rate goes by its template, whatever the path."""
    counts = await kept(sink, "/items/1", "/items/2", "/ok", sample_routes={"/items/{item}": 0})
    assert counts == {"/ok": 1}


async def test_a_rate_keeps_its_share(sink: MemorySink) -> None:
    """Of 400 requests at a rate of one half, about 200 are kept."""
    counts = await kept(sink, "/ok", times=400, sample_rate=0.5)
    assert 130 < counts["/ok"] < 270


async def test_an_unsampled_request_records_nothing(
    sink: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nobody listens, tracing calls do nothing, warn of nothing, and the context is still there."""
    app = FastAPI()
    calls: list[Any] = []

    @trace
    def work(value: Any) -> Any:
        calls.append(value)
        return value

    @app.get("/")
    async def read() -> dict[str, Any]:
        work(object())
        with start_span("block") as span:
            span.set_outputs(1)
        update_current_trace(tags={"a": "b"}, state="OK")
        return {"request": wherefrom.context.request_id, "trace": wherefrom.context.trace_id}

    settings = Settings(store="none", sample_rate=0, keep_errors=False)
    transport = httpx.ASGITransport(TraceMiddleware(app, sink=sink, settings=settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answer = (await http.get("/", headers={"X-Request-ID": "r"})).json()
    assert len(calls) == 1
    assert answer["request"] == "r"
    assert answer["trace"].startswith("tr-")
    assert sink.traces == []
    assert [record for record in caplog.records if record.name.startswith("wherefrom")] == []


@settings(max_examples=30)
@given(st.floats(0, 1), st.floats(0, 1))
def test_one_trace_has_one_answer(low: float, high: float) -> None:
    """The same trace is decided alike in every process, and a higher rate keeps what a lower one kept."""
    low, high = sorted((low, high))
    trace_id, _ = format_ids(1_000_000, *new_random())

    def records(rate: float) -> bool:
        settings = Settings(store="none", sample_rate=rate, keep_errors=False)
        return Sampler(settings).starts(trace_id, None)

    assert records(low) <= records(high)
    assert records(low) == records(low)
    assert records(1.0)
    assert not records(0.0)
