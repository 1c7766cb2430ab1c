"""What is ClickHouse's own: sending again, late spans, processes side by side, a server that goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.traffic import START, make_trace
from tests.clickhouse import MAX_FIELD
from tests.engines import ClickHouseServer, NewUrl, running_clickhouse
from wherefrom import keys
from wherefrom.client import TraceClient
from wherefrom.exceptions import (
    QueryCancelledError,
    QueryTimeoutError,
    StoreError,
    StoreUnavailableError,
    StoreVersionError,
)
from wherefrom.model import Source, SpanStatus, SpanStatusCode, Trace, TraceState
from wherefrom.model.record import Facts, decode_facts
from wherefrom.query.order import NEWEST_FIRST
from wherefrom.stores import Selection, open_store
from wherefrom.stores.clickhouse.connection import parse_url
from wherefrom.stores.clickhouse.store import ClickHouseStore
from wherefrom.stores.deadline import Deadline
from wherefrom.stores.opening import examine

LONG = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 7"


def only(store: ClickHouseStore, trace_id: str = make_trace(1).info.trace_id) -> Trace:
    with store.snapshot() as snapshot:
        assert snapshot.count(Selection()) == 1
        (trace,) = snapshot.read(snapshot.find([trace_id]))
        return trace


def raw(store: ClickHouseStore, table: str) -> int:
    """The rows of a table, the replaced ones too."""
    return int(store._connection.rows(f"SELECT count() FROM {table}")[0][0])


def test_a_trace_that_is_written_again_is_one_trace(store: ClickHouseStore) -> None:
    """The second write adds spans, metadata and tags; an error stays, and so do the tags of the first."""
    first = make_trace(1, failed=True, metadata={"a": "1", "b": "1"}, tags={"t": "1"})
    store.write([first])
    second = make_trace(1, metadata={"b": "2", "c": "2"}, tags={"t": "2", "u": "2"}, version="2.0")
    second.data.spans[0].span_id = "00000000000000ff"
    second.data.spans[0].parent_id = first.data.spans[0].span_id
    second.info.request_time += 5
    store.write([second])
    found = only(store)
    assert found.info.state is TraceState.ERROR
    assert found.info.request_time == first.info.request_time
    assert (
        found.info.trace_metadata.items() >= {"a": "1", "b": "2", "c": "2", keys.APP_VERSION: "2.0"}.items()
    )
    assert found.info.tags.items() >= {"t": "1", "u": "2"}.items()
    assert {span.span_id for span in found.data.spans} == {first.data.spans[0].span_id, "00000000000000ff"}


def test_a_request_may_say_otherwise_than_its_process(store: ClickHouseStore) -> None:
    """It is read from its source and what it says itself, and found by a column."""
    own = {keys.APP_VERSION: "2.0", keys.REGION: "eu", keys.INSTANCE_ID: "p1", keys.COST: "{}"}
    trace = make_trace(1, source=Source({keys.APP_VERSION: "1.0", "team": "core"}), metadata=own)
    for _ in range(2):
        store.write([trace])
        assert only(store).info.trace_metadata == {"team": "core", **own}
    for key, value in own.items():
        (found,) = TraceClient(store).search_traces(filter_string=f"metadata.`{key}` = '{value}'")
        assert found.info.trace_metadata == {"team": "core", **own}


def test_a_page_takes_four_statements(store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the snapshot is, which traces, their rows and their spans; the experiment is known from before."""
    store.write([make_trace(number, metadata={keys.SESSION: "s"}) for number in range(3)])
    client = TraceClient(store)
    before = client.search_traces(["default"], f"metadata.`{keys.SESSION}` = 's'")
    ask, asked = store._connection.rows, []

    def count(sql: str, *others: Any, **named: Any) -> list[list[Any]]:
        asked.append(sql)
        return ask(sql, *others, **named)

    monkeypatch.setattr(store._connection, "rows", count)
    assert client.search_traces(["default"], f"metadata.`{keys.SESSION}` = 's'") == before
    assert len(before) == 3
    assert len(asked) == 4


def test_a_trace_twice_in_a_batch_is_one_trace(store: ClickHouseStore) -> None:
    store.write([make_trace(1, metadata={"a": "1"}), make_trace(1, metadata={"b": "2"})])
    assert only(store).info.trace_metadata.items() >= {"a": "1", "b": "2"}.items()


def test_a_span_that_is_written_again_is_replaced(store: ClickHouseStore) -> None:
    store.write([make_trace(1)])
    again = make_trace(1)
    again.data.spans[0].attributes["seen"] = "twice"
    store.write([again])
    (span,) = only(store).data.spans
    assert span.attributes["seen"] == "twice"


SOURCE = Source({keys.APP_VERSION: "1.0", "team": "core"})
FACTS = Facts(
    1, 2, 3, 1_700_000_000_000_000_000, 1_700_000_000_005_000_000, "r1", "s1", None, "GET /", 200, 5, "/a",
    f"00-{'a' * 32}-{'b' * 16}-01", '{"server.address":"host"}', None, "default", SOURCE.digest,
)  # fmt: skip
JOINED = '{"metadata":{"k":"v"},"attributes":{"a":1.0},"trace_id":"tr-1","parent_id":"00000000000000ff"}'


@pytest.mark.parametrize(
    "facts", [FACTS, FACTS._replace(session_id=None, user_id="u", size=None, link="x", rest=JOINED)]
)
def test_the_facts_of_a_request_are_its_trace(store: ClickHouseStore, facts: Facts) -> None:
    sources = {SOURCE.digest: SOURCE}
    trace = decode_facts(tuple(facts), sources)
    store.write_records([tuple(facts)], sources)
    assert only(store, trace.info.trace_id) == trace
    with store.snapshot() as snapshot:
        assert snapshot.keys("metadata") == sorted({*trace.info.trace_metadata})
        assert snapshot.has_key("span", "server.address")


ATTRIBUTED = {
    "http_status = 500": "b",
    "http_status >= 200 AND http_status < 300": "a",
    "outcome = 'failed'": "b",
    "outcome IS NULL": "c",
    "NOT model = 'm'": "bc",
    "model LIKE '_'": "a",
    "time_to_first_byte > '1ms'": "a",
    "error_type IN ('TimeoutError')": "b",
    "span.message LIKE '%slow%'": "b",
    "search LIKE '%SLOW%' OR search ILIKE '%slow%'": "b",
    "request_preview = 'hi' AND outcome = 'completed'": "a",
}


def test_fields_that_spans_tell_are_found(store: ClickHouseStore) -> None:
    """Of the root, not of a span below it, or of the first span that has one."""
    traces = {name: make_trace(number, name=name) for number, name in enumerate("abc")}
    traces["a"].info.request_preview = "hi"
    below = make_trace(9).data.spans[0]
    root = traces["a"].data.spans[0]
    root.attributes |= {
        "http.response.status_code": 200, "wherefrom.outcome": "completed",
        "wherefrom.time_to_first_byte_ms": 2.5,
    }  # fmt: skip
    below.parent_id, below.attributes = root.span_id, {
        "gen_ai.request.model": "m", "http.response.status_code": 404,
    }  # fmt: skip
    traces["a"].data.spans.append(below)
    failed = traces["b"].data.spans[0]
    failed.status, failed.parent_id = SpanStatus(SpanStatusCode.ERROR, "too slow"), "00000000000000ff"
    failed.attributes |= {
        "http.response.status_code": 500, "wherefrom.outcome": "failed", "error.type": "TimeoutError",
    }  # fmt: skip
    store.write(list(traces.values()))
    client = TraceClient(store)
    for text, names in ATTRIBUTED.items():
        found = client.search_traces(filter_string=text)
        assert {trace.info.name for trace in found} == set(names), text
    with store.snapshot() as snapshot:
        rows = snapshot.rows(snapshot.search(Selection(), NEWEST_FIRST, 10).keys)
        assert {row.name: row.http_status for row in rows} == {"a": 200, "b": 500, "c": None}
        assert snapshot.bounds(Selection(), with_pruned=True) == (START, START + 2000)
    assert store.prune(START + 10**6) == 3
    with store.snapshot() as snapshot:
        assert snapshot.bounds(Selection(), with_pruned=True) == (START, START + 2000)
        assert snapshot.bounds(Selection()) is None
    assert store.delete("default") == 0
    with store.snapshot() as snapshot:
        assert snapshot.bounds(Selection(), with_pruned=True) is None
    assert store.upgrade() == 1


@pytest.mark.parametrize("time", [-(2**63), -1, 0, 2**32 * 1000, 2**63 - 1])
def test_any_time_of_64_bits_can_be_written(store: ClickHouseStore, time: int) -> None:
    """And again, with another outcome; it falls on some day, always the same one."""
    first, second = make_trace(1, ms=None), make_trace(1, ms=None, failed=True)
    for trace in (first, second):
        trace.info.request_time = time
        store.write([trace])
    assert (only(store).info.request_time, only(store).info.state) == (time, TraceState.ERROR)


def test_any_text_reads_back_as_it_was(store: ClickHouseStore) -> None:
    """NUL, quotes, line ends and what the driver escapes; of half characters JSON keeps a mark."""
    text = "\0 '\"\\ \t\r\n {p0:String} %s é \U0010ffff"
    trace = make_trace(1, name=text, metadata={text: text, "half": "a\ud800b"}, tags={text: text})
    trace.data.spans[0].attributes[text] = [text, {text: 1.0, "big": 2**63}]
    store.write([trace])
    found = only(store)
    assert (found.info.name, found.info.trace_metadata[text], found.info.tags[text]) == (text, text, text)
    assert found.data.spans[0].attributes == trace.data.spans[0].attributes
    assert "half" in found.info.trace_metadata


def test_a_batch_that_may_have_arrived_is_taken_once(
    store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The acknowledgement was lost: the same batch is sent again, under the same token."""
    store.write([make_trace(0)])
    insert = store._connection.insert

    def lose_answer(table: str, *others: Any) -> None:
        insert(table, *others)
        if table == "spans":
            raise StoreUnavailableError("the connection broke")

    with monkeypatch.context() as patched:
        patched.setattr(store._connection, "insert", lose_answer)
        with pytest.raises(StoreUnavailableError):
            store.write([make_trace(1)])
    store.write([make_trace(1)])
    assert (raw(store, "traces"), raw(store, "spans")) == (2, 2)


def test_many_traces_are_named_at_a_time(store: ClickHouseStore) -> None:
    """Their ids are longer than what a server takes as one value."""
    traces = [make_trace(number) for number in range(MAX_FIELD // 35)]
    ids = [trace.info.trace_id for trace in traces]
    for _ in range(2):
        store.write(traces)
    with store.snapshot() as snapshot:
        page = snapshot.search(Selection(), NEWEST_FIRST, len(traces))
        assert [place.trace_id for place in page.keys] == ids[::-1]
    assert store.delete("default", trace_ids=ids[::-1], limit=2) == 2
    with store.snapshot() as snapshot:
        assert snapshot.find(ids[:3]) == snapshot.find(ids[2:3])
    assert store.delete("default", trace_ids=ids) == len(ids) - 2
    with store.snapshot() as snapshot:
        assert snapshot.count(Selection()) == 0


def test_a_trace_that_was_deleted_can_come_again(store: ClickHouseStore) -> None:
    """A token names a batch that failed, not its content."""
    store.write([make_trace(1)])
    store.set_tag(make_trace(1).info.trace_id, "edited", "yes")
    assert store.delete("default", until_ms=START + 10**6) == 1
    store.write([make_trace(1)])
    assert "edited" not in only(store).info.tags


def test_an_edited_tag_is_found_and_ordered_by(store: ClickHouseStore) -> None:
    """Whether the trace had the tag or not, and its name too."""
    store.write([make_trace(n, tags={"t": str(n)}) for n in range(3)])
    ids = [make_trace(n).info.trace_id for n in range(3)]
    store.set_tag(ids[0], "t", "9")
    store.set_tag(ids[1], keys.TRACE_NAME_TAG, "renamed")
    store.delete_tag(ids[2], "t")
    client = TraceClient(store)

    def found(text: str | None = None, order: list[str] | None = None) -> list[str]:
        return [trace.info.trace_id for trace in client.search_traces(filter_string=text, order_by=order)]

    assert found("tag.t = '9'") == [ids[0]]
    assert found("tag.t IS NULL") == [ids[2]]
    assert found("name = 'renamed'") == [ids[1]]
    assert found(order=["tag.t DESC"]) == [ids[0], ids[1], ids[2]]
    assert found("span.name LIKE '%' AND (span.name = 'nothing' OR tag.t = '9')") == [ids[0]]
    assert found("NOT tag.t = '9' AND NOT span.name = 'nothing'") == [ids[2], ids[1]]


def test_processes_that_start_at_once_share_the_tables(new_clickhouse_url: NewUrl) -> None:
    stores = [ClickHouseStore(url) for url in [new_clickhouse_url()] * 4]
    barrier = threading.Barrier(len(stores))
    failed: list[BaseException] = []

    def write(number: int) -> None:
        barrier.wait()
        try:
            stores[number].write([make_trace(number, metadata={f"k{number}": "v"}, experiment=f"e{number}")])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=[number]) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    cursors = set()
    for store in stores:
        with store.snapshot() as snapshot:
            assert snapshot.count(Selection()) == len(stores)
            assert len(snapshot.experiments()) == len(stores)
            cursors.add(snapshot.cursor().partition(".")[0])
        store.close()
    assert len(cursors) == 1


def test_tables_that_were_dropped_are_made_again(store: ClickHouseStore) -> None:
    """The batch fails once; the queue sends it again."""
    store.write([make_trace(1)])
    store._connection.execute("DROP TABLE traces SYNC")
    store._connection.execute("DROP TABLE facts SYNC")
    with pytest.raises(StoreUnavailableError):
        store.write([make_trace(2)])
    store.write([make_trace(2)])
    assert only(store, make_trace(2).info.trace_id).info.experiment == "default"


def test_tables_of_another_version_are_named(store: ClickHouseStore) -> None:
    """Those that lack a column, as tables that were made before it was added do."""
    rename = "ALTER TABLE traces RENAME COLUMN {} TO {} SETTINGS mutations_sync = 2"
    others = "are of another version; 'wherefrom db schema' prints those of this one"
    store.write([make_trace(1)])
    store._connection.execute(rename.format("request_preview", "former"))
    try:
        with store.snapshot() as snapshot, pytest.raises(StoreError, match=others):
            snapshot.search(Selection(), NEWEST_FIRST, 10)
        with pytest.raises(StoreError, match=others):
            store.write([make_trace(2)])
    finally:
        store._connection.execute(rename.format("former", "request_preview"))


def test_a_newer_schema_is_refused(store: ClickHouseStore) -> None:
    store.write([make_trace(1)])
    store._connection.execute("INSERT INTO facts (name, value) VALUES ('schema_version', 99)")
    other = ClickHouseStore(f"clickhouse://{store.url.partition('://')[2]}")
    with pytest.raises(StoreVersionError, match="schema version 99"):
        other.write([make_trace(2)])
    assert any("schema version 99" in problem for problem in other.health().problems)
    other.close()


def test_days_can_be_kept_from_now_on(new_clickhouse_url: NewUrl) -> None:
    """Another ``retention_days`` changes the tables, of which old traces then go."""
    url = new_clickhouse_url()
    for days in (None, 5, 3):
        store = ClickHouseStore(url, retention_days=days)
        store.write([make_trace(1)])
        store.close()
    made = "SELECT name FROM system.tables WHERE database = currentDatabase()"
    aged = store._connection.rows(
        f"{made} AND create_table_query LIKE {{ttl:String}}", {"ttl": "% TTL %toIntervalSecond(259200) %"}
    )
    assert {name for (name,) in aged} == {"traces", "trace_ids", "spans", "tags", "assessments"}
    store.vacuum()
    with store.snapshot() as snapshot:
        assert snapshot.count(Selection()) == 0
    store.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClickHouseServer]:
    """A server of the test's own, to be ended and started again."""
    with running_clickhouse(tmp_path / "engine") as server:
        yield server


def test_a_server_that_is_killed_loses_nothing(server: ClickHouseServer) -> None:
    """While it is away writing says so, and so do health and reading; then all goes on."""
    store = ClickHouseStore(f"clickhouse://127.0.0.1:{server.port}/traces")
    store.write([make_trace(1)])
    server.stop()
    for ask in (lambda: store.write([make_trace(2)]), store.missing, lambda: store.snapshot().__enter__()):
        with pytest.raises(StoreUnavailableError):
            ask()
    assert "cannot be reached" in store.health().problems[0]
    server.start()
    store.write([make_trace(2)])
    with store.snapshot() as snapshot:
        keys = snapshot.search(Selection(), NEWEST_FIRST, 10).keys
        assert [trace.info.trace_id for trace in snapshot.read(keys)] == [
            make_trace(number).info.trace_id for number in (2, 1)
        ]
    store.close()


RUNNING = "SELECT 1 FROM system.processes WHERE query LIKE 'SELECT count() FROM numbers%'"


def is_running(store: ClickHouseStore) -> bool:
    return bool(store._connection.rows(RUNNING))


def wait_until(store: ClickHouseStore, *, runs: bool) -> None:
    """Wait until the server runs the long query, or has ended it; fail after 30 s."""
    end = time.monotonic() + 30
    while is_running(store) is not runs:
        assert time.monotonic() < end, "the query ended too early" if runs else "the query still runs"


def once_running(store: ClickHouseStore, then: Callable[[], object]) -> None:
    """Call ``then`` in another thread when the server runs the long query."""

    def wait() -> None:
        wait_until(store, runs=True)
        then()

    threading.Thread(target=wait).start()


def test_a_cancelled_query_ends_on_the_server(store: ClickHouseStore) -> None:
    store.write([make_trace(1)])
    with Deadline() as deadline:
        once_running(store, deadline.cancel)
        with pytest.raises(QueryCancelledError):
            store._connection.rows(LONG)
    wait_until(store, runs=False)


def test_who_cancels_does_not_wait_for_the_server(
    store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event loop that a client has left goes on."""
    store.write([make_trace(1)])
    kill, went_on, in_time = store._connection._kill, threading.Event(), []

    def kill_late(name: str, closings: int) -> None:
        in_time.append(went_on.wait(30))
        kill(name, closings)

    monkeypatch.setattr(store._connection, "_kill", kill_late)
    with Deadline() as deadline:

        def cancel() -> None:
            deadline.cancel()
            went_on.set()

        once_running(store, cancel)
        with pytest.raises(QueryCancelledError):
            store._connection.rows(LONG)
    assert in_time == [True]


def test_who_cancels_after_the_store_was_closed_leaves_no_connection_open(store: ClickHouseStore) -> None:
    store.write([make_trace(1)])
    connection = store._connection
    begun = connection._closings
    store.close()
    connection._kill("a query that has ended", begun)
    assert connection._free == []
    store.write([make_trace(2)])
    assert len(connection._free) == 1


def test_a_query_ends_at_its_deadline(store: ClickHouseStore) -> None:
    store.write([make_trace(1)])
    with pytest.raises(QueryTimeoutError), Deadline(0.2):
        store._connection.rows(LONG)
    wait_until(store, runs=False)


def test_ctrl_c_ends_the_query_on_the_server(store: ClickHouseStore) -> None:
    store.write([make_trace(1)])
    once_running(store, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        store._connection.rows(LONG)
    wait_until(store, runs=False)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("clickhouse://me:se%2Fcret@host/db", "clickhouse://host:8123/db"),
        ("clickhouse://host?secure=true", "clickhouse://host:8443/wherefrom?secure=true"),
        (
            "clickhouse://u:p@[::1]:9/db?cluster=c&async_insert=0&ca_cert=/x/ca.pem",
            "clickhouse://[::1]:9/db?ca_cert=/x/ca.pem&cluster=c&async_insert=false",
        ),
    ],
)
def test_a_url_shows_no_credentials(url: str, shown: str) -> None:
    target = parse_url(url)
    assert target.url == shown
    assert "cret" not in repr(target)
    assert parse_url(shown).url == shown


@pytest.mark.parametrize(
    "url",
    [
        "clickhouse://", "clickhouse:///db", "clickhouse://u:secret@host:port/db", "clickhouse://u:secret@h/a/b",
        "clickhouse://u:secret@host/db?what=1", "clickhouse://u:secret@host/db?secure=maybe", "chdb:///",
        "chdb://folder", "clickhouse://u:secret/1@host/db", "clickhouse://u:1/secret@host/db",
        "clickhouse://u:1?secret@host/db", "clickhouse://u:1#secret@host/db", "clickhouse://u:secret",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StoreError) as raised:
        open_store(url)
    assert "secret" not in str(raised.value)
    if "@" in url:
        assert "secret" not in repr(examine(url))


IN_PROCESS = """
import sys
from wherefrom.model import Trace
from wherefrom.stores import Selection, open_store
from wherefrom.stores.opening import examine
from tests.analysis.traffic import make_trace

store = open_store("chdb:///" + sys.argv[1])
print(store.missing())
store.write([make_trace(1, metadata={"k": "v"})])
print(store.missing(), store.url)
with store.snapshot() as snapshot:
    (trace,) = snapshot.read(snapshot.find([make_trace(1).info.trace_id]))
    print(trace.info.trace_metadata["k"], snapshot.state().kind)
store.close()
"""


def test_the_engine_runs_in_this_process(tmp_path: Path, new_clickhouse_url: NewUrl) -> None:
    """chdb has one folder a process, so it has a process of its own here."""
    folder = tmp_path / "store"
    command = [sys.executable, "-c", IN_PROCESS, str(folder)]
    for first in (f"nothing is stored in chdb:///{folder} yet", "None"):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        lines = done.stdout.splitlines()
        assert lines[0].startswith(first), done.stderr
        assert lines[1:] == [f"None chdb:///{folder}", "v chdb"], done.stderr
