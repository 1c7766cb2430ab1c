"""Why a filter finds nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines import NewUrl, every_engine, new_store
from wherefrom.analysis.misses import Miss, explain
from wherefrom.analysis.scope import Window, opened
from wherefrom.stores import Store

from .traffic import START, make_trace


@pytest.fixture(scope="module")
def traces(new_url: NewUrl) -> Iterator[Store]:
    with new_store(new_url) as store:
        store.write(
            [
                make_trace(1, version="1.0", metadata={"tier": "gold"}, tags={"team": "a"}),
                make_trace(2, version="2.0", failed=True, name="POST /chat"),
            ]
        )
        yield store


def misses(store: Store, filter_string: str | None, since: int = 0) -> list[Miss]:
    with opened(store, filter_string) as (snapshot, selection):
        return explain(snapshot, selection, Window(since, START + 10**6).limit(selection))


@every_engine
@pytest.mark.parametrize(
    ("filter_string", "message", "suggestions"),
    [
        (
            "metadata.app_versoin = '1.0'",
            "no trace carries metadata.app_versoin; did you mean metadata.app_version?",
            ["metadata.app_version = '1.0'"],
        ),
        (
            "tag.taem IN ('a') AND name = 'GET /'",
            "no trace carries tag.taem; did you mean tag.team?",
            ["tag.team IN ('a') AND name = 'GET /'"],
        ),
        ("metadata.zzz = 'a'", "no trace carries metadata.zzz", []),
        ("span.attributes.zzz = 'a'", "no trace carries span.attributes.zzz", []),
        ("status = 'error'", "no trace has status = 'error'; there are ERROR, OK", ["status = 'ERROR'"]),
        (
            "span.type = 'server'",
            "none of the newest traces has span.type = 'server'; there are SERVER",
            ["span.type = 'SERVER'"],
        ),
        (
            "request_id = 'req-1'",
            "the field request_id is the trace id; the request id is client_request_id",
            ["client_request_id = 'req-1'"],
        ),
        (
            "metadata.app_version = '1.1' OR user = 'x'",
            "no trace has metadata.app_version = '1.1'; there are 1.0, 2.0",
            ["metadata.app_version = '1.0' OR user = 'x'"],
        ),
        ("http_status = 200", "none of the newest traces has http_status = 200", []),
        (
            "metadata.tier = 'gold' AND status = 'ERROR'",
            "each part finds traces, but no trace has all of them",
            ["status = 'ERROR'", "metadata.tier = 'gold'"],
        ),
        ("name LIKE '%no%' AND status = 'OK'", "nothing in the time range has name LIKE '%no%'", []),
    ],
)
def test_the_part_to_blame_is_named(
    traces: Store, filter_string: str, message: str, suggestions: list[str]
) -> None:
    """With filters that may have been meant."""
    first = misses(traces, filter_string)[0]
    assert first.message == message
    assert first.sentence.lower() == message.lower().removesuffix("?") + ("?" if "mean" in message else ".")
    assert first.sentence[0].isupper()
    assert sorted(first.suggestions) == sorted(suggestions)


def test_where_no_part_is_to_blame_nothing_is_said(traces: Store) -> None:
    """An empty store or time range, or a pattern without a match."""
    assert misses(traces, None) == []
    assert misses(traces, "name LIKE '%nothing%'") == []
    assert misses(traces, "status = 'OK'", since=START + 5000) == []
    assert misses(traces, "NOT status = 'OK' AND NOT status = 'ERROR'")[0].message.startswith("each part")


@every_engine
def test_a_part_that_has_traces_outside_of_the_range_is_named(traces: Store) -> None:
    found = misses(traces, "status = 'OK' AND name = 'POST /chat'", since=START + 1500)
    assert [one.message for one in found] == ["nothing in the time range has status = 'OK'"]
