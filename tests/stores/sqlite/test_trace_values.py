"""The list of values: what it holds at any time is what the traces have, whoever changed them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wherefrom import keys
from wherefrom.client import TraceClient
from wherefrom.model import Trace
from wherefrom.stores.sql.known_keys import ANY, LONG, lists_key, lists_value
from wherefrom.stores.sqlite.store import SQLiteStore

MakeTrace = Callable[..., Trace]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path)
    yield store
    store.close()


def listed(path: Path) -> set[tuple[str, str, str, int, str]]:
    """Family, key, value, time and trace id of all that is listed."""
    with closing(sqlite3.connect(path)) as connection:
        return set(
            connection.execute(
                "SELECT family, known_keys.key, value, trace_values.request_time, trace_id FROM trace_values"
                " JOIN known_keys ON known_keys.id = trace_values.key"
                " LEFT JOIN traces ON traces.id = trace_values.trace"
            )
        )


def expected(traces: list[Trace]) -> set[tuple[str, str, str, int, str]]:
    found = set()
    for info in (trace.info for trace in traces):
        of_source = {*keys.SOURCE_KEYS, keys.SESSION, keys.USER}
        for family, pairs, elsewhere in (
            ("metadata", info.trace_metadata, of_source),
            ("tag", info.tags, {keys.TRACE_NAME_TAG}),
        ):
            found |= {
                (family, key, value, info.request_time, info.trace_id)
                for key, value in pairs.items()
                if key not in elsewhere and lists_key(key) and lists_value(value)
            }
    return found


def lacking(path: Path, what: int = LONG) -> set[str]:
    """Keys whose list lacks so much."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            key for (key,) in connection.execute("SELECT key FROM known_keys WHERE unlisted = ?", (what,))
        }


def stored(store: SQLiteStore) -> list[Trace]:
    return list(TraceClient(store).search_traces(max_results=1000))


def test_own_pairs_are_listed(store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
    """Not those of the source, the session and the user, which have indexes of their own."""
    pairs = {"app_version": "1", "mlflow.trace.session": "s", "tenant": "acme"}
    trace = make_trace(trace_metadata=pairs, tags={"team": "core", "mlflow.traceName": "GET /"})
    store.write([trace])
    time, id_ = trace.info.request_time, trace.info.trace_id
    assert listed(path) == {("metadata", "tenant", "acme", time, id_), ("tag", "team", "core", time, id_)}
    assert lacking(path) == set()


def test_what_is_too_long_is_not(store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
    """Its key is marked, so that a pattern is looked for in the traces themselves."""
    store.write([make_trace(trace_metadata={"k": "x" * 129, "n": "a\0b", "s": "x" * 128})])
    assert {(key, value) for _, key, value, *_ in listed(path)} == {("s", "x" * 128)}
    assert lacking(path) == {"k", "n"}


def test_content_is_not(store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
    """Inputs and outputs differ from trace to trace: an index of them would be as large as they are."""
    store.write([make_trace(trace_metadata={keys.TRACE_INPUTS: "{}", keys.TRACE_OUTPUTS: "1"})])
    assert listed(path) == set()


def test_a_late_part_of_a_trace_is_followed(store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
    """Metadata that comes again replaces what was listed; tags that were edited stay."""
    trace = make_trace(trace_metadata={"a": "1", "b": "1"}, tags={"t": "1"})
    store.write([trace])
    trace.info.trace_metadata = {"a": "2", "c": "y" * 200}
    trace.info.tags = {"t": "2", "u": "1"}
    store.write([trace])
    pairs = {(key, value) for _, key, value, *_ in listed(path)}
    assert pairs == {("a", "2"), ("b", "1"), ("t", "1"), ("u", "1")}
    assert lacking(path) == {"c"}
    assert listed(path) == expected(stored(store))


def test_edited_tags_are_followed(store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
    """The client changes a row with SQL of its own: the trigger sees it."""
    store.write([trace := make_trace(tags={"t": "1", "gone": "x"})])
    client, id_ = TraceClient(store), trace.info.trace_id
    client.set_trace_tag(id_, "t", "2")
    client.set_trace_tag(id_, "long", "z" * 500)
    client.delete_trace_tag(id_, "gone")
    assert {(key, value) for _, key, value, *_ in listed(path)} == {("t", "2")}
    assert lacking(path) == {"long"}


def test_a_change_that_sqlite_cannot_read(store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
    """Its JSON stops at a NUL: the keys of such a trace are no longer looked up in the list."""
    trace = make_trace(trace_metadata={"k": "a", "n": "b\0c"}, tags={})
    store.write([trace])
    assert lacking(path, ANY) == set()
    trace.info.trace_metadata["k"] = "z"
    store.write([trace])
    assert lacking(path, ANY) == {"k", "n"}
    client = TraceClient(store)
    for text in ("metadata.k = 'z'", "metadata.k LIKE 'z'", "metadata.n = 'b\0c'"):
        assert len(client.search_traces(filter_string=text)) == 1


def test_deleted_traces_leave_nothing(store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
    """By the client and by pruning."""
    traces = [
        make_trace(experiment="e", request_time=time, trace_metadata={"k": f"v{time}"}) for time in range(9)
    ]
    store.write(traces)
    TraceClient(store).delete_traces("e", trace_ids=[traces[3].info.trace_id])
    store.prune(before_ms=2)
    assert listed(path) == expected(stored(store))
    assert len(listed(path)) == 6


texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["", "a\0", 'a"b', "a\\b", "%_*", "x" * 128, "x" * 129, "é" * 128, "\U0001f642" * 100]
)
pairs = st.dictionaries(
    texts | st.sampled_from(["k", "tenant", "a.b", "a\0", "app_version"]), texts, max_size=4
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), pairs, pairs), min_size=1, max_size=8),
    st.sampled_from("abc"),
    pairs,
)
def test_the_list_is_true_whatever_happens(
    tmp_path: Path,
    make_trace: MakeTrace,
    writes: list[tuple[str, dict[str, str], dict[str, str]]],
    doomed: str,
    later: dict[str, str],
) -> None:
    """Written again, edited and deleted in any order: the list is what the traces have."""
    path = tmp_path / "any.db"
    path.unlink(missing_ok=True)
    store = SQLiteStore(path)
    try:
        for letter, metadata, tags in writes:
            store.write([make_trace(trace_id="tr-" + letter * 32, trace_metadata=metadata, tags=tags)])
        TraceClient(store).delete_traces("default", trace_ids=["tr-" + doomed * 32])
        store.write([make_trace(trace_id="tr-" + "a" * 32, trace_metadata=later)])
        unknown = lacking(path, ANY)
        is_sure = {entry for entry in expected(stored(store)) if entry[1] not in unknown}
        assert {entry for entry in listed(path) if entry[1] not in unknown} == is_sure
    finally:
        store.close()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
