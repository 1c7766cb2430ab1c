"""A megabyte in every field of a trace: the pages stay small, and quick."""

from __future__ import annotations

import httpx
import pytest

from wherefrom import SpanStatus, keys
from wherefrom.model import Source, SpanStatusCode
from wherefrom.process import ProcessReport, Stats
from wherefrom.stores import Store

from ..conftest import get
from ..samples import make_traces

MEGABYTE = '"><script>\u202e' + "y" * 1_000_000
SOURCE = (
    keys.APP_VERSION,
    keys.DEPLOYMENT_ID,
    keys.REGION,
    keys.ENVIRONMENT,
    keys.GIT_COMMIT,
    keys.GIT_BRANCH,
    keys.GIT_REPO_URL,
)


@pytest.fixture
def _large(store: Store) -> None:
    own = {keys.SESSION: MEGABYTE, keys.USER: MEGABYTE, "feature_flag_" + MEGABYTE[:250]: MEGABYTE}
    traces = make_traces(2, name=MEGABYTE, failed=True, metadata=own)
    for trace in traces:
        trace.info.request_preview = trace.info.response_preview = MEGABYTE
        trace.info.source = Source(dict.fromkeys(SOURCE, MEGABYTE))
        trace.info.trace_metadata |= trace.info.source.pairs
        trace.data.spans[0].status = SpanStatus(SpanStatusCode.ERROR, MEGABYTE)
    store.write(traces)
    stats = Stats(dropped={MEGABYTE: 1}, errors={MEGABYTE: 1}, refused_headers={MEGABYTE: 1})
    store.report(ProcessReport(MEGABYTE, 1, 0, 2_000_000_000_000, stats, {MEGABYTE: 1}))


@pytest.mark.usefixtures("_large")
async def test_pages_stay_small(client: httpx.AsyncClient) -> None:
    for path in (
        "/sessions",
        "/compare",
        "/compare?by=name",
        "/compare?by=session_id",
        "/deployments",
        "/status",
        "/compare.svg?by=name",
        "/compare.svg?by=app_version",
    ):
        answer = await client.get(path)
        assert answer.status_code == 200, path
        assert len(answer.content) < 60_000, path
        assert "\u202e" not in answer.text, path


@pytest.mark.usefixtures("_large")
async def test_a_session_of_them_stays_small(client: httpx.AsyncClient, store: Store) -> None:
    traces = make_traces(2, metadata={keys.SESSION: "short", "feature_flag_new": MEGABYTE}, failed=True)
    for number, trace in enumerate(traces):
        trace.info.trace_id = f"tr-{100 + number:032x}"
        trace.info.request_preview = trace.info.response_preview = MEGABYTE
        trace.info.tags[keys.TRACE_NAME_TAG] = MEGABYTE
        trace.data.spans[0].trace_id = trace.info.trace_id
        trace.data.spans[0].status = SpanStatus(SpanStatusCode.ERROR, MEGABYTE)
    store.write(traces)
    page = await get(client, "/session", id="short")
    assert len(page.text) < 20_000
