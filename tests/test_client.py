from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.engines import NewUrl
from tests.sql import execute
from wherefrom import keys
from wherefrom.client import KnownExperiment, PagedList, TraceClient, get_trace, search_traces
from wherefrom.exceptions import (
    FilterError,
    InvalidTraceError,
    StoreError,
    StoreUnavailableError,
    TraceNotFoundError,
)
from wherefrom.model import Source, Span, SpanEvent, Trace, TraceState
from wherefrom.stores import Store, open_store


@pytest.fixture
def url(new_url: NewUrl) -> Iterator[str]:
    url = new_url()
    yield url
    new_url.release(url)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url)
    yield store
    store.close()


@pytest.fixture
def client(store: Store) -> TraceClient:
    return TraceClient(store)


def numbered(make_trace: Any, count: int, **info: Any) -> list[Trace]:
    return [
        make_trace(str(number), trace_id=f"tr-{number:032x}", request_time=1000 + number, **info)
        for number in range(count)
    ]


def names(traces: list[Trace]) -> list[str | None]:
    return [trace.info.name for trace in traces]


def test_a_trace_is_found_by_its_id_or_its_request_id(
    store: Store, client: TraceClient, make_trace: Any
) -> None:
    """With and without ``tr-``, in upper and lower case."""
    digits = f"{0xABCDEF:032x}"
    trace = make_trace("GET /", trace_id=f"tr-{digits}", client_request_id="req-7")
    store.write([make_trace("other", trace_id=f"tr-{1:032x}", client_request_id="req-8"), trace])
    for wanted in (
        "tr-{0}",
        "{0}",
        "TR-{0}",
        "{1}",
        "req-7",
    ):
        assert client.get_trace(wanted.format(digits, digits.upper())) == trace


def test_a_request_id_names_the_newest_of_its_traces(
    store: Store, client: TraceClient, make_trace: Any
) -> None:
    """A retry has the same request id."""
    traces = numbered(make_trace, 3, client_request_id="again")
    store.write(traces)
    assert client.get_trace("again") == traces[-1]


def test_a_trace_id_precedes_a_request_id(store: Store, client: TraceClient, make_trace: Any) -> None:
    """A client may send another trace's id as its request id."""
    first, second = numbered(make_trace, 2)
    second.info.client_request_id = first.info.trace_id
    store.write([first, second])
    assert client.get_trace(first.info.trace_id) == first


def test_what_names_no_trace_is_not_found(client: TraceClient) -> None:
    """Anything that is no id, of any type."""
    cases: list[Any] = [
        "",
        "nope",
        "tr-" + "0" * 32,
        "a'b",
        "%",
        "\ud800",
        7,
        None,
    ]
    for wanted in cases:
        with pytest.raises(TraceNotFoundError, match="no trace has the id"):
            client.get_trace(wanted)


def test_a_trace_reads_as_it_was_written(store: Store, client: TraceClient, make_trace: Any) -> None:
    source = Source({"app_version": "1", "region": "eu"})
    own = {keys.SESSION: "s", keys.USER: "", "k": "v"}
    trace = make_trace(
        "GET /é",
        experiment="shop",
        client_request_id="r",
        request_preview="q",
        response_preview="",
        trace_metadata={**source, **own},
        source=source,
        tags={keys.TRACE_NAME_TAG: "GET /é", "team": "core"},
    )
    root = trace.data.spans[0]
    root.inputs, root.outputs, root.attributes = {"a": [1, None]}, "out", {"k": 1.5, "flag": True}
    root.events.append(SpanEvent("exception", 5, {"exception.type": "E"}))
    root.links.append({"trace_id": "0" * 32, "span_id": "0" * 16, "attributes": {}})
    child = Span(trace.info.trace_id, "1" * 16, root.span_id, "child", start_time_ns=root.start_time_ns)
    trace.data.spans.append(child)
    store.write([trace])
    read = client.get_trace(trace.info.trace_id)
    assert read == trace
    assert read.info.source == source
    assert client.search_traces()[0] == trace
    assert Trace.from_dict(read.to_dict()).to_dict() == trace.to_dict()


def test_an_absent_duration_and_name_stay_absent(store: Store, client: TraceClient, make_trace: Any) -> None:
    trace = make_trace(execution_duration=None, state=TraceState.IN_PROGRESS, tags={})
    trace.data.spans.clear()
    store.write([trace])
    assert client.get_trace(trace.info.trace_id) == trace


def test_an_unknown_id_is_not_found(client: TraceClient) -> None:
    with pytest.raises(TraceNotFoundError, match="no trace has the id 'tr-nope'"):
        client.get_trace("tr-nope")


def test_traces_come_in_the_order_of_their_ids(store: Store, client: TraceClient, make_trace: Any) -> None:
    """Each once, however often it is asked for; what is not there is left out."""
    traces = numbered(make_trace, 1200)
    store.write(traces)
    ids = [trace.info.trace_id for trace in reversed(traces)]
    assert client.get_traces([*ids, "tr-nope", ids[0]]) == traces[::-1]
    assert client.get_traces([]) == []


def test_traces_without_their_spans(store: Store, client: TraceClient, make_trace: Any) -> None:
    """Asked for infos, the client reads no spans."""
    trace = make_trace()
    store.write([trace])
    (found,) = client.search_traces(include_spans=False)
    assert (found.info, found.data.spans) == (trace.info, [])
    assert client.get_traces([trace.info.trace_id], include_spans=False) == [found]


def test_experiments_are_searched_by_name(store: Store, client: TraceClient, make_trace: Any) -> None:
    """They come with their ids, the latest first, in pages."""
    assert client.search_experiments() == []
    store.write([make_trace(experiment=name) for name in ("shop", "1", "shop", "chat")])
    shop, one, chat = (KnownExperiment(id_, name) for id_, name in ((1, "shop"), (2, "1"), (3, "chat")))
    first = client.search_experiments(max_results=2)
    assert first == [chat, one]
    second = client.search_experiments(max_results=2, page_token=first.token)
    assert (second, second.token) == ([shop], None)
    assert client.search_experiments("name = 'shop'") == [shop]
    assert client.search_experiments("name LIKE '%h%' AND NOT name ILIKE 'SHOP'") == [chat]
    assert client.search_experiments("name IN ('1', 'nope') OR name RLIKE '^c'") == [chat, one]
    assert client.search_experiments(order_by=["name"]) == [one, chat, shop]
    assert client.search_experiments(order_by=["attributes.creation_time asc"]) == [shop, one, chat]


def test_a_search_of_experiments_that_cannot_be_read(client: TraceClient) -> None:
    """It is one sentence."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"filter_string": "status = 'OK'"}, "experiments are searched by their name, not by status"),
        ({"filter_string": "name ="}, "expected"),
        ({"order_by": ["last_update_time"]}, "experiments are ordered by name, experiment_id, creation_time"),
        ({"order_by": ["name; DROP TABLE traces"]}, "experiments are ordered by"),
        ({"page_token": "x"}, "this page_token is not one that a search returned"),
        ({"max_results": 0}, "max_results takes 1 to 50,000, not 0"),
    ]
    for arguments, message in cases:
        with pytest.raises(FilterError, match=message):
            client.search_experiments(**arguments)


def test_pages_are_stable_while_traces_arrive(store: Store, client: TraceClient, make_trace: Any) -> None:
    store.write(numbered(make_trace, 10))
    first = client.search_traces(max_results=4)
    store.write([make_trace("new", request_time=5000)])
    second = client.search_traces(max_results=4, page_token=first.token)
    third = client.search_traces(max_results=4, page_token=second.token)
    assert names(first) + names(second) + names(third) == [str(number) for number in range(9, -1, -1)]
    assert isinstance(first, PagedList)
    assert third.token is None


def test_pages_in_any_order_are_the_whole_in_parts(
    store: Store, client: TraceClient, make_trace: Any
) -> None:
    traces = numbered(make_trace, 12)
    for number, trace in enumerate(traces):
        trace.info.execution_duration = None if number % 4 == 0 else number % 3
        pairs = {} if number % 4 == 1 else {"k": str(number % 3)}
        trace.info.trace_metadata |= pairs
        trace.info.tags |= pairs
    store.write(traces)
    fields = ("execution_time", "metadata.k", "tag.k", "status", "timestamp", "name")
    for field, direction in product(fields, ("ASC", "DESC")):
        order = [f"{field} {direction}"]
        whole = names(client.search_traces(order_by=order))
        parts: list[str | None] = []
        token = None
        while True:
            page = client.search_traces(order_by=order, max_results=5, page_token=token)
            parts += names(page)
            token = page.token
            if token is None:
                break
        assert parts == whole
        assert len(set(whole)) == 12


def test_the_last_page_has_no_token_even_when_full(
    store: Store, client: TraceClient, make_trace: Any
) -> None:
    store.write(numbered(make_trace, 3))
    assert client.search_traces(max_results=3).token is None


def test_a_bad_token_is_one_clear_error(client: TraceClient) -> None:
    cases: list[Any] = [
        "nonsense",
        "é",
        "e30=",
        "WzEsIFtdLCBbXV0=",
        "bm90IGpzb24=",
        b"bytes",
        5,
        "WzEsMiwzXQ==",
    ]
    for token in cases:
        with pytest.raises(FilterError, match=r"^this page_token"):
            client.search_traces(page_token=token)


def test_a_token_serves_its_own_order_alone(store: Store, client: TraceClient, make_trace: Any) -> None:
    store.write(numbered(make_trace, 3))
    token = client.search_traces(max_results=1).token
    with pytest.raises(FilterError, match="comes from a search in another order"):
        client.search_traces(max_results=1, page_token=token, order_by=["name"])


def test_max_results_has_bounds(client: TraceClient) -> None:
    cases: list[Any] = [
        0,
        -1,
        50_001,
        None,
        "5",
        True,
        1.5,
    ]
    for number in cases:
        with pytest.raises(FilterError, match="max_results takes 1 to 50,000"):
            client.search_traces(max_results=number)


def test_experiments_go_by_name_then_by_number(store: Store, client: TraceClient, make_trace: Any) -> None:
    for name in ("a", "b", "1"):
        store.write([make_trace(name, experiment=name)])
    assert set(names(client.search_traces())) == {"a", "b", "1"}
    assert set(names(client.search_traces(experiment_ids=[]))) == {"a", "b", "1"}
    assert names(client.search_traces(experiment_ids=["a"])) == ["a"]
    assert names(client.search_traces(experiment_ids=["1"])) == ["1"]
    assert names(client.search_traces(experiment_ids=[2])) == ["b"]
    assert client.search_traces(experiment_ids=["nobody"]) == []
    assert names(client.search_traces(order_by=["experiment_id DESC"])) == ["b", "a", "1"]


def test_an_unknown_field_brings_the_key_that_traces_have(
    store: Store, client: TraceClient, make_trace: Any
) -> None:
    store.write([make_trace(trace_metadata={"tenant id": "t"})])
    with pytest.raises(FilterError, match=r"did you mean metadata\.`tenant id`"):
        client.search_traces(filter_string="`tenant id` = 't'")
    with pytest.raises(FilterError, match="cannot order by 'tenant'"):
        client.search_traces(order_by=["tenant"])


def test_orders_that_are_none(client: TraceClient) -> None:
    cases: list[tuple[Any, str]] = [
        ("name", "order_by takes a list"),
        (["metadata.a"] * 2, "order_by names metadata.a twice"),
        ([f"metadata.k{number}" for number in range(21)], "at most 20 fields"),
        ([5], "expected text, not 5"),
    ]
    for order_by, said in cases:
        with pytest.raises(FilterError, match=said):
            client.search_traces(order_by=order_by)


def test_tags_can_be_set_searched_and_deleted(store: Store, client: TraceClient, make_trace: Any) -> None:
    trace = make_trace("old")
    store.write([trace])
    id_ = trace.info.trace_id
    client.set_trace_tag(id_, "reviewed by", 5)
    client.set_trace_tag(id_, keys.TRACE_NAME_TAG, "new")
    assert client.get_trace(id_).info.tags == {"reviewed by": "5", keys.TRACE_NAME_TAG: "new"}
    assert names(client.search_traces(filter_string="tag.`reviewed by` = '5' AND name = 'new'")) == ["new"]
    assert "reviewed by" in client.list_keys("tag")
    client.delete_trace_tag(id_, "reviewed by")
    client.delete_trace_tag(id_, keys.TRACE_NAME_TAG)
    assert client.get_trace(id_).info.tags == {}
    assert client.search_traces(filter_string="name IS NULL")


def test_a_long_tag_is_cut(
    store: Store, client: TraceClient, make_trace: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trace = make_trace()
    store.write([trace])
    with caplog.at_level(logging.WARNING, logger="wherefrom"):
        client.set_trace_tag(trace.info.trace_id, "k", "x" * 9000)
    assert client.get_trace(trace.info.trace_id).info.tags["k"] == "x" * 8000
    assert "tag k has 9000 characters; it is cut to 8000" in caplog.text


def test_a_tag_key_has_few_characters(client: TraceClient) -> None:
    for key in (
        "",
        "a" * 251,
        "a\nb",
        "a=b",
        "é🙂",
        "a'b",
    ):
        with pytest.raises(InvalidTraceError, match="is no key for a tag"):
            client.set_trace_tag("tr-x", key, "v")


def test_tags_that_mlflow_fixes_are_left(
    store: Store, client: TraceClient, make_trace: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trace = make_trace()
    store.write([trace])
    client.set_trace_tag(trace.info.trace_id, "mlflow.user", "somebody")
    client.delete_trace_tag(trace.info.trace_id, "mlflow.artifactLocation")
    assert client.get_trace(trace.info.trace_id) == trace
    assert caplog.text.count("cannot be changed") == 2


def test_a_tag_of_any_key_can_be_deleted(store: Store, client: TraceClient, make_trace: Any) -> None:
    trace = make_trace(tags={"🙂": "x"})
    store.write([trace])
    client.delete_trace_tag(trace.info.trace_id, "🙂")
    assert client.get_trace(trace.info.trace_id).info.tags == {}


def test_a_tag_needs_its_trace(store: Store, client: TraceClient, make_trace: Any) -> None:
    with pytest.raises(TraceNotFoundError):
        client.set_trace_tag("tr-nope", "k", "v")
    trace = make_trace()
    store.write([trace])
    with pytest.raises(TraceNotFoundError, match="has no tag 'k'"):
        client.delete_trace_tag(trace.info.trace_id, "k")


def test_deleting_by_time_takes_the_oldest_first(store: Store, client: TraceClient, make_trace: Any) -> None:
    store.write(numbered(make_trace, 6))
    assert client.delete_traces("default", max_timestamp_millis=1003, max_traces=2) == 2
    assert names(client.search_traces()) == ["5", "4", "3", "2"]
    assert client.delete_traces("default", max_timestamp_millis=1003) == 2
    assert client.delete_traces("nobody", max_timestamp_millis=9999) == 0
    assert names(client.search_traces(filter_string="span.name LIKE '%'")) == ["5", "4"]


def test_deleting_by_id_minds_the_experiment(store: Store, client: TraceClient, make_trace: Any) -> None:
    traces = numbered(make_trace, 3)
    store.write(traces)
    ids = [trace.info.trace_id for trace in traces[:2]]
    assert client.delete_traces("nobody", trace_ids=ids) == 0
    assert client.delete_traces("default", trace_ids=[*ids, "tr-nope"]) == 2
    assert client.delete_traces("default", trace_ids=[]) == 0
    assert names(client.search_traces()) == ["2"]


def test_deleting_takes_many_in_turns(store: Store, client: TraceClient, make_trace: Any) -> None:
    store.write(numbered(make_trace, 2500))
    assert client.delete_traces("default", max_timestamp_millis=10_000, max_traces=2200) == 2200
    assert client.delete_traces("default", trace_ids=[f"tr-{number:032x}" for number in range(2500)]) == 300


def test_deleting_takes_either_a_time_or_ids(client: TraceClient) -> None:
    cases: list[dict[str, Any]] = [
        {},
        {"max_timestamp_millis": 5, "trace_ids": ["x"]},
        {"max_traces": 5},
        {"max_traces": 5, "trace_ids": ["x"]},
        {"max_traces": 0, "max_timestamp_millis": 5},
    ]
    for arguments in cases:
        with pytest.raises(FilterError):
            client.delete_traces("default", **arguments)


def test_keys_and_sources(store: Store, client: TraceClient, make_trace: Any) -> None:
    for version, moment in (("1", 1000), ("2", 2000), ("1", 3000)):
        source = Source({"app_version": version})
        trace = make_trace(
            request_time=moment, trace_metadata={**source, "own": "x"}, source=source, tags={"team": "core"}
        )
        trace.data.spans[0].attributes["k"] = 1
        store.write([trace])
    assert client.list_keys() == ["app_version", "own"]
    assert client.list_keys("tag") == ["team"]
    assert client.list_keys("span") == ["k"]
    first, second = client.list_sources()
    assert (first.metadata, first.traces, first.first_seen, first.last_seen) == (
        {"app_version": "1"},
        2,
        1000,
        3000,
    )
    assert (second.metadata, second.traces, second.first_seen) == ({"app_version": "2"}, 1, 2000)


def test_an_override_of_the_source_is_found_by_its_own_value(
    store: Store, client: TraceClient, make_trace: Any
) -> None:
    source = Source({"app_version": "1"})
    overridden = {"app_version": "2"}
    store.write(
        [
            make_trace("same", trace_metadata=dict(source), source=source),
            make_trace("other", trace_metadata=overridden, source=source),
        ]
    )
    assert names(client.search_traces(filter_string="metadata.app_version = '1'")) == ["same"]
    assert names(client.search_traces(filter_string="metadata.app_version = '2'")) == ["other"]


def test_a_client_opens_and_closes_what_it_is_given_by_url(store: Store, url: str, make_trace: Any) -> None:
    store.write([make_trace("a")])
    with TraceClient(url) as client:
        assert names(client.search_traces()) == ["a"]
    assert names(client.search_traces()) == ["a"]
    client.close()
    client.close()


def test_module_functions_read_the_configured_store(
    store: Store, url: str, make_trace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHEREFROM_STORE", url)
    trace = make_trace("a", experiment="shop")
    store.write([trace, make_trace("b")])
    assert names(search_traces("name = 'a'", max_results=5)) == ["a"]
    assert names(search_traces(experiment="shop")) == ["a"]
    assert get_trace(trace.info.trace_id) == trace


def test_a_process_that_keeps_no_traces_has_none_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHEREFROM_STORE", "none")
    with pytest.raises(StoreError, match="WHEREFROM_STORE is none"):
        search_traces()


def test_a_store_that_is_no_database_is_a_store_error(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(StoreError):
        TraceClient(f"sqlite:///{path}").search_traces()


def test_a_store_out_of_reach_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        TraceClient(f"sqlite:///{tmp_path}").search_traces()


def test_a_broken_table_is_a_store_error(store: Store, client: TraceClient, make_trace: Any) -> None:
    store.write([make_trace()])
    execute(store, "DROP TABLE spans")
    with pytest.raises(StoreError) as caught:
        client.search_traces()
    assert not isinstance(caught.value, StoreUnavailableError)


def test_reading_sees_one_moment_and_blocks_no_writer(
    store: Store, client: TraceClient, make_trace: Any
) -> None:
    store.write(numbered(make_trace, 2))
    with store.snapshot() as snapshot:
        assert snapshot.state().traces == 2
        store.write([make_trace("new")])
        assert snapshot.state().traces == 2
    assert len(client.search_traces()) == 3


def test_code_of_mlflows_guide_runs_as_it_is(store: Store, client: TraceClient, make_trace: Any) -> None:
    for version, state in (("1.0", "OK"), ("1.0", "ERROR"), ("1.1", "OK")):
        metadata = {"app_version": version, "mlflow.source.type": "production", "feature_flag_new": "true"}
        store.write([make_trace(trace_metadata=metadata, state=TraceState(state), experiment="1")])

    def error_rate(version: str) -> float:
        traces = client.search_traces(
            experiment_ids=["1"],
            filter_string="metadata.`mlflow.source.type` = 'production'"
            f" AND metadata.app_version = '{version}'",
        )
        return sum(1 for trace in traces if trace.info.status == "ERROR") / len(traces)

    assert error_rate("1.0") == 0.5
    assert error_rate("1.1") == 0
    flagged = client.search_traces(experiment_ids=["1"], filter_string="metadata.feature_flag_new = 'true'")
    assert [trace.info.execution_time_ms for trace in flagged] == [5, 5, 5]
