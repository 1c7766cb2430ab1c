"""The SQLite store: the content of the file, and files that are unavailable."""

from __future__ import annotations

import gc
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

import wherefrom
from tests.sql import execute
from wherefrom import Span, SpanEvent, SpanStatus, Trace, TraceInfo, TraceState
from wherefrom.exceptions import StoreError, StoreUnavailableError, StoreVersionError
from wherefrom.model import Source, SpanStatusCode, TraceData
from wherefrom.sinks import BackgroundSink
from wherefrom.stores import open_store
from wherefrom.stores.sql.schema import SCHEMA_VERSION, traces
from wherefrom.stores.sqlite.store import SQLiteStore

MakeTrace = Callable[..., Trace]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wherefrom.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path)
    yield store
    store.close()


def test_a_store_that_is_thrown_away_is_closed(path: Path, make_trace: MakeTrace) -> None:
    """Python 3.13 warns about connections that are not closed."""
    store = SQLiteStore(path)
    store.write([make_trace()])
    writer = store._open.writer
    with store.engine.connect() as connection:
        reader = connection.connection.dbapi_connection
    assert writer is not None
    assert reader is not None
    del store, connection
    gc.collect()
    for closed in (writer, reader):
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            closed.execute("SELECT 1")


def rows(path: Path, query: str, *values: Any) -> list[Any]:
    """What is in the file, read without our code."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.01)


def read(store: SQLiteStore) -> list[Trace]:
    """All traces, through the reader, in the order in which they were written."""
    with store.snapshot() as snapshot:
        return snapshot.read(snapshot.connection.scalars(select(traces.c.id).order_by(traces.c.id)).all())


SOURCE = Source({"app_version": "1.2", "region": "eu", "mlflow.source.name": "app:app"})


def from_source(make_trace: MakeTrace, source: Source = SOURCE, /, **own: str) -> Trace:
    """A trace as the recorder makes it: its metadata starts as the source's."""
    return make_trace(trace_metadata={**source, **own}, source=source)


class TestRows:
    def test_one_row_a_trace(self, store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
        """Fields are columns, session and user among them; the rest of metadata and tags is JSON."""
        trace = from_source(
            make_trace, **{"mlflow.trace.session": "s", "mlflow.trace.user": "u", "flag": "true"}
        )
        trace.info.tags["team"] = "core"
        trace.info.client_request_id = "r"
        trace.info.request_preview = '{"q": 1}'
        store.write([trace])
        columns = (
            "trace_id, name, state, request_time, duration_us, client_request_id, session_id, user_id,"
            " request_preview, response_preview, metadata, tags"
        )
        assert rows(path, f"SELECT {columns} FROM traces") == [
            (
                trace.info.trace_id,
                "GET /",
                "OK",
                1_700_000_000_000,
                5000,
                "r",
                "s",
                "u",
                '{"q": 1}',
                None,
                '{"flag":"true"}',
                '{"team":"core"}',
            )
        ]
        assert rows(path, "SELECT name FROM experiments") == [("default",)]
        assert rows(path, "PRAGMA journal_mode") == [("wal",)]
        assert rows(path, "SELECT version FROM schema_version") == [(SCHEMA_VERSION,)]

    def test_a_source_is_stored_once(self, store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
        """What is the same for a process is one row, by the hash of its content, whoever writes it."""
        store.write([from_source(make_trace) for _ in range(3)])
        with closing(SQLiteStore(path)) as other:
            other.write([from_source(make_trace, Source(dict(SOURCE)))])
        ((digest, metadata, count),) = rows(
            path,
            "SELECT digest, sources.metadata, count(*) FROM traces JOIN sources ON source_id = sources.id"
            " GROUP BY digest",
        )
        assert (digest, json.loads(metadata), count) == (SOURCE.digest, dict(SOURCE), 4)
        assert rows(path, "SELECT DISTINCT metadata FROM traces") == [("{}",)]

    def test_an_override_is_another_source(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace
    ) -> None:
        """A trace that overrides or drops a key of its source points to another source."""
        changed = from_source(make_trace, region="us")
        dropped = from_source(make_trace)
        del dropped.info.trace_metadata["region"]
        store.write([from_source(make_trace), changed, dropped, from_source(make_trace, region="us")])
        found = rows(
            path,
            "SELECT sources.metadata FROM traces JOIN sources ON source_id = sources.id ORDER BY traces.id",
        )
        regions = [json.loads(metadata).get("region") for (metadata,) in found]
        assert regions == ["eu", "us", None, "us"]
        assert rows(path, "SELECT count(*) FROM sources") == [(3,)]
        assert [trace.info.trace_metadata.get("region") for trace in read(store)] == regions

    def test_many_sources_are_not_all_remembered(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Traces that each override their source do not fill the memory; rows are found again."""
        monkeypatch.setattr("wherefrom.stores.sqlite.writer._MAX_KNOWN", 2)
        for _ in range(2):
            store.write([from_source(make_trace, region=f"r{n}") for n in range(5)])
        assert rows(path, "SELECT count(*) FROM sources") == [(5,)]
        regions = [trace.info.trace_metadata["region"] for trace in read(store)]
        assert regions == [f"r{n}" for n in range(5)] * 2

    def test_traces_from_elsewhere_are_split_by_key(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace
    ) -> None:
        """An imported trace has no source: the keys that name one make it."""
        store.write([make_trace(trace_metadata={"app_version": "9", "own": "x"})])
        assert rows(path, "SELECT metadata FROM sources") == [('{"app_version":"9"}',)]
        assert rows(path, "SELECT metadata FROM traces") == [('{"own":"x"}',)]

    def test_keys_are_learned(self, store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
        """Keys of traces are stored once each, for hints and completion."""
        for _ in range(2):
            trace = from_source(make_trace, own="x")
            trace.info.tags["team"] = "core"
            trace.data.spans[0].attributes["http.route"] = "/"
            store.write([trace])
        known = set(rows(path, "SELECT family, key FROM known_keys"))
        assert {("metadata", "own"), ("metadata", "region"), ("tag", "team"), ("span", "http.route")} <= known

    def test_fractions_of_a_ms_are_kept(self, store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
        """Durations are stored in µs if the root span has them, and read as MLflow's floored ms."""
        fine, coarse, running = make_trace(), make_trace(), make_trace(execution_duration=None)
        fine.data.spans[0].end_time_ns = fine.data.spans[0].start_time_ns + 5_123_456
        coarse.data.spans.clear()
        running.data.spans[0].end_time_ns = None
        store.write([fine, coarse, running])
        assert rows(path, "SELECT duration_us FROM traces ORDER BY id") == [(5123,), (5000,), (None,)]
        assert [trace.info.execution_duration for trace in read(store)] == [5, 5, None]

    def test_experiments_are_kept_apart(self, store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
        """Each name is one row."""
        store.write([make_trace(experiment=name) for name in ("a", "b", "a")])
        assert rows(path, "SELECT name FROM experiments ORDER BY name") == [("a",), ("b",)]
        assert [trace.info.experiment for trace in read(store)] == ["a", "b", "a"]


class TestUpsert:
    def test_late_spans_are_added(self, store: SQLiteStore, make_trace: MakeTrace) -> None:
        """A trace that comes again brings the spans that it lacked; what was there stays."""
        trace = from_source(make_trace, own="x")
        store.write([trace])
        root = trace.data.spans[0]
        late = Span(trace.info.trace_id, "b" * 16, root.span_id, "late", start_time_ns=root.start_time_ns + 1)
        store.write([Trace(trace.info, TraceData([late]))])
        (stored,) = read(store)
        assert stored.data.spans == [root, late]
        assert stored.info == trace.info

    def test_a_span_that_was_open_is_completed(self, store: SQLiteStore, make_trace: MakeTrace) -> None:
        """A span that was running when its trace was written gets its end later."""
        trace = make_trace()
        late = Span(trace.info.trace_id, "b" * 16, None, "late", start_time_ns=2)
        trace.data.spans.append(late)
        store.write([trace])
        late.end_time_ns, late.status, late.outputs = 3, SpanStatus(SpanStatusCode.ERROR, "x"), [1]
        store.write([Trace(trace.info, TraceData([late]))])
        (stored,) = read(store)
        assert sorted(stored.data.spans, key=lambda span: span.name) == [trace.data.spans[0], late]

    def test_its_own_duration_is_not_the_trace_s(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace
    ) -> None:
        """A late span does not change how long the request took, not by a µs."""
        trace = make_trace()
        trace.data.spans[0].end_time_ns = trace.data.spans[0].start_time_ns + 5_123_456
        store.write([trace])
        late = Span(trace.info.trace_id, "b" * 16, None, "late", start_time_ns=0, end_time_ns=5_999_999)
        store.write([Trace(trace.info, TraceData([late]))])
        assert rows(path, "SELECT duration_us FROM traces") == [(5123,)]

    def test_tags_that_were_edited_stay(self, store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
        """Tags can be changed once a trace is stored: a late span does not undo it."""
        trace = make_trace(tags={"mlflow.traceName": "x", "team": "core"})
        store.write([trace])
        execute(store, """UPDATE traces SET tags = '{"team":"edited"}'""")
        store.write([Trace(trace.info, TraceData([]))])
        assert read(store)[0].info.tags == {"mlflow.traceName": "x", "team": "edited"}

    def test_one_batch_may_hold_both(self, store: SQLiteStore, make_trace: MakeTrace) -> None:
        """A trace and its late span may wait in the queue together."""
        trace = make_trace()
        late = Span(trace.info.trace_id, "b" * 16, None, "late", start_time_ns=10**19 // 2)
        store.write([trace, Trace(trace.info, TraceData([late])), trace])
        assert [span.name for span in read(store)[0].data.spans] == ["GET /", "late"]


names = st.text(max_size=8)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | names,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)
int64 = st.integers(0, 2**63 - 1)


@st.composite
def any_trace(draw: st.DrawFn) -> Trace:
    trace_id = draw(st.uuids().map(lambda value: f"tr-{value.hex}"))
    span = st.builds(
        Span,
        trace_id=st.just(trace_id),
        span_id=st.uuids().map(lambda value: value.hex[:16]),
        parent_id=st.none() | st.uuids().map(lambda value: value.hex[:16]),
        name=names,
        span_type=names,
        start_time_ns=int64,
        end_time_ns=st.none() | int64,
        status=st.builds(SpanStatus, st.sampled_from(list(SpanStatusCode)), names),
        inputs=values,
        outputs=values,
        attributes=st.dictionaries(names, values, max_size=3),
        events=st.lists(
            st.builds(SpanEvent, names, int64, st.dictionaries(names, values, max_size=1)), max_size=1
        ),
        links=st.just([]),
    )
    pairs = st.dictionaries(
        st.sampled_from(["region", "mlflow.trace.user", "a.b"]) | names, names, max_size=4
    )
    info = st.builds(
        TraceInfo,
        trace_id=st.just(trace_id),
        experiment=names,
        request_time=st.integers(0, 2**62),
        execution_duration=st.none() | st.integers(0, 10**12),
        state=st.sampled_from(list(TraceState)),
        client_request_id=st.none() | names,
        request_preview=st.none() | names,
        response_preview=st.none() | names,
        trace_metadata=pairs,
        tags=pairs,
        source=st.none(),
    )
    spans = draw(st.lists(span, max_size=3, unique_by=lambda span: span.span_id))
    trace = Trace(draw(info), TraceData(sorted(spans, key=lambda span: span.start_time_ns)))
    if not trace.info.execution_duration:  # or the root span would tell it
        for each in spans:
            each.end_time_ns = None
    return trace


@given(st.lists(any_trace(), max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(store: SQLiteStore, batch: list[Trace]) -> None:
    """Any trace is read as it was written."""
    store.prune(2**63 - 1)
    store.write(batch)
    assert read(store) == batch


class TestOddValues:
    def test_text_that_utf_8_cannot_hold(self, store: SQLiteStore, make_trace: MakeTrace) -> None:
        """Lone surrogates, wherever they come from, are replaced and cost nothing else."""
        odd = "a\ud800b"
        trace = make_trace(
            odd,
            experiment=odd,
            client_request_id=odd,
            request_preview=odd,
            trace_metadata={odd: odd},
            tags={odd: odd},
        )
        span = trace.data.spans[0]
        span.span_type = odd
        span.status = SpanStatus(SpanStatusCode.ERROR, odd)
        span.inputs = {odd: odd}
        span.attributes[odd] = odd
        span.events.append(SpanEvent(odd, 1, {odd: odd}))
        store.write([trace])
        (stored,) = read(store)
        assert stored.info.client_request_id == "a?b"
        assert stored.info.trace_metadata == {"a?b": "a?b"}
        assert stored.data.spans[0].name == stored.data.spans[0].span_type == "a?b"

    def test_what_json_cannot_hold(self, store: SQLiteStore, make_trace: MakeTrace) -> None:
        """Objects on a span are written as their ``repr``; NUL, huge and deep values as they are."""
        trace = make_trace()
        deep: list[Any] = []
        for _ in range(300):
            deep = [deep]
        trace.data.spans[0].attributes |= {"o": object(), "nul": "\x00", "big": 2**70, "deep": deep}
        trace.data.spans[0].inputs = "x" * 2_000_000
        trace.data.spans[0].outputs = float("nan")
        trace.info.trace_metadata["k"] = "\x00" * 9
        store.write([trace])
        (stored,) = read(store)
        attributes = stored.data.spans[0].attributes
        assert attributes["o"].startswith("<object")
        assert (attributes["nul"], attributes["big"]) == ("\x00", str(2**70))
        assert len(stored.data.spans[0].inputs) == 2_000_000
        assert stored.info.trace_metadata["k"] == "\x00" * 9

    def test_a_refused_trace_leaves_nothing(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace
    ) -> None:
        """A batch that cannot be written is not half written, and the next one works."""
        bad: Any = make_trace()
        bad.info.request_time = None
        with pytest.raises(StoreError):
            store.write([from_source(make_trace, own="x"), bad])
        for table in ("traces", "spans", "sources", "experiments", "known_keys"):
            assert rows(path, f"SELECT count(*) FROM {table}") == [(0,)], table
        store.write([from_source(make_trace, own="x")])
        assert len(read(store)) == 1
        assert rows(path, "SELECT count(*) FROM known_keys WHERE key = 'own'") == [(1,)]


class TestUnavailable:
    def test_a_locked_file_is_waited_for(self, store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
        """The store waits for another program's transaction without an error."""
        store.write([make_trace()])
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.1, lambda: other.execute("COMMIT"))
        began = time.monotonic()
        timer.start()
        store.write([make_trace()])
        assert time.monotonic() - began >= 0.09
        timer.join()
        other.close()
        assert len(read(store)) == 2

    def test_a_file_that_stays_locked_is_to_be_tried_again(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A lock that outlasts the timeout raises ``StoreUnavailableError``; a later call succeeds."""
        monkeypatch.setattr("wherefrom.stores.sqlite.file.BUSY_TIMEOUT_S", 0.01)
        other = sqlite3.connect(path, isolation_level=None)
        store.write([make_trace()])
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            store.write([make_trace()])
        other.execute("ROLLBACK")
        store.write([make_trace()])
        other.close()
        assert len(read(store)) == 2

    def test_a_file_that_another_process_makes_is_waited_for(self, path: Path, make_trace: MakeTrace) -> None:
        """Workers that start together all want to make the file: one does, the others wait."""
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN EXCLUSIVE")
        other.execute("CREATE TABLE mine (x)")
        timer = threading.Timer(0.05, lambda: other.execute("COMMIT"))
        timer.start()
        store = SQLiteStore(path)
        store.write([make_trace()])
        store.close()
        timer.join()
        other.close()
        assert rows(path, "SELECT count(*) FROM traces") == [(1,)]

    def test_a_full_disk(self, store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
        """``StoreUnavailableError`` is raised, no part of the batch is stored, and a later call succeeds."""
        store.write([make_trace()])
        pages = rows(path, "PRAGMA page_count")[0][0]
        connection = store._connection()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        batch = [make_trace(request_preview="x" * 900) for _ in range(200)]
        with pytest.raises(StoreUnavailableError, match="full"):
            store.write(batch)
        assert len(read(store)) == 1
        connection.execute("PRAGMA max_page_count = 1000000")
        store.write(batch)
        assert len(read(store)) == 201

    def test_a_full_disk_behind_the_queue(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The queue keeps traces that cannot be written, logs it once, and writes them when there is room."""
        store.write([make_trace()])
        connection = store._connection()
        connection.execute(f"PRAGMA max_page_count = {rows(path, 'PRAGMA page_count')[0][0]}")
        queue = BackgroundSink(store, flush_interval_ms=1)
        queue.write([make_trace(request_preview="x" * 9000) for _ in range(50)])
        assert not queue.flush(0.2)
        assert wherefrom.stats().errors["SQLiteStore"] >= 1
        assert len(caplog.records) == 1
        assert "full" in caplog.text
        connection.execute("PRAGMA max_page_count = 1000000")
        assert queue.flush()
        queue.close()
        assert len(read(store)) == 51
        assert wherefrom.stats().dropped == {}

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path, make_trace: MakeTrace) -> None:
        """A path below a file is out of reach until somebody moves the file."""
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreUnavailableError, match=r"w\.db"):
            SQLiteStore(tmp_path / "file" / "w.db").write([make_trace()])

    def test_a_folder_is_made(self, tmp_path: Path, make_trace: MakeTrace) -> None:
        """The folders of the path are made with the file, at the first write and not before."""
        store = open_store(f"sqlite:///{tmp_path / 'a' / 'b' / 'w.db'}")
        assert list(tmp_path.iterdir()) == []
        store.write([make_trace()])
        store.close()
        assert (tmp_path / "a" / "b" / "w.db").exists()

    def test_a_file_that_is_no_database(self, path: Path, make_trace: MakeTrace) -> None:
        """Somebody else's file is named, not overwritten, and not tried again for ever."""
        path.write_bytes(b"no database, but somebody's letter" * 99)
        with pytest.raises(StoreError, match="not a database") as caught:
            SQLiteStore(path).write([make_trace()])
        assert not isinstance(caught.value, StoreUnavailableError)
        assert path.read_bytes().startswith(b"no database")


class TestVersions:
    def test_a_newer_schema_is_refused_by_name(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace
    ) -> None:
        """A file of a newer Wherefrom is neither written nor read; the error names both versions."""
        store.write([make_trace()])
        store.close()
        connection = sqlite3.connect(path)
        connection.execute("UPDATE schema_version SET version = 99")
        connection.commit()
        connection.close()
        for use in (lambda: store.write([make_trace()]), lambda: store.engine, lambda: store.prune(0)):
            with pytest.raises(
                StoreVersionError, match=r"wherefrom\.db has schema version 99.*reads up to 1"
            ):
                use()
        assert rows(path, "SELECT count(*) FROM traces") == [(1,)]

    def test_a_database_of_one_s_own_gains_our_tables(self, path: Path, make_trace: MakeTrace) -> None:
        """An app's SQLite file may hold our tables beside its own."""
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE mine (x)")
        connection.commit()
        connection.close()
        store = SQLiteStore(path)
        store.write([make_trace()])
        store.close()
        assert rows(path, "SELECT count(*) FROM traces") == [(1,)]
        assert rows(path, "SELECT count(*) FROM mine") == [(0,)]


class TestPrune:
    def test_older_traces_go(self, store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
        """Traces that started before a time are deleted with their spans; their number is returned."""
        store.write([make_trace(request_time=moment) for moment in (10, 20, 30)])
        assert store.prune(20) == 1
        assert store.prune(20) == 0
        assert [trace.info.request_time for trace in read(store)] == [20, 30]
        assert rows(path, "SELECT count(*) FROM spans") == [(2,)]

    def test_many_go_in_pieces(
        self, store: SQLiteStore, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A large deletion does not keep others from writing for its whole length."""
        for name in ("_FIRST_STEP", "_SMALLEST_STEP", "_LARGEST_STEP"):
            monkeypatch.setattr(f"wherefrom.stores.sqlite.store.{name}", 10)
        store.write([make_trace(request_time=moment) for moment in range(35)])
        gone: list[int] = []
        assert store.prune(1000, on_progress=gone.append) == 35
        assert gone == [10, 20, 30, 35]
        assert read(store) == []

    def test_retention_deletes_while_writing(self, path: Path, make_trace: MakeTrace) -> None:
        """``retention_days`` needs no cron job."""
        store = open_store(f"sqlite:///{path}", retention_days=1)
        now = int(time.time() * 1000)
        store.write([make_trace(request_time=now - 90_000_000), make_trace(request_time=now)])
        until(lambda: rows(path, "SELECT count(*) FROM traces") == [(1,)])
        store.close()
        assert rows(path, "SELECT request_time FROM traces") == [(now,)]


class TestProcesses:
    def test_two_processes_write_at_once(self, path: Path) -> None:
        """Several workers share a file from its creation: no trace is lost and no lock is reported."""
        code = """
            import sys
            from wherefrom import Trace, TraceInfo
            from wherefrom._ids import format_ids, new_random
            from wherefrom.stores import open_store
            store = open_store("sqlite:///" + sys.argv[1])
            for n in range(60):
                metadata = {"region": "eu", "worker": sys.argv[2]}
                trace_id, _ = format_ids(n * 1_000_000, *new_random())
                store.write([Trace(TraceInfo(trace_id, trace_metadata=metadata))])
            store.close()
        """
        command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
        workers = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE) for n in range(3)]
        errors = [worker.communicate(timeout=60)[1] for worker in workers]
        assert errors == [b""] * 3
        assert rows(path, "SELECT count(*) FROM traces") == [(180,)]
        assert rows(path, "SELECT count(*) FROM sources") == [(1,)]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_opens_the_file_anew(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace
    ) -> None:
        """Parent and child write through the same store, each on a connection of its own."""
        store.write([from_source(make_trace)])
        assert len(read(store)) == 1
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                store.write([from_source(make_trace)])
                code = 0 if len(read(store)) == 2 else 2
                store.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        store.write([from_source(make_trace)])
        assert len(read(store)) == 3
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_it_may_be_forked_in_the_middle_of_a_write(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace
    ) -> None:
        """A lock that the writer thread held at the fork is not the child's."""
        in_write, leave = threading.Event(), threading.Event()

        class Slow:
            def __repr__(self) -> str:
                in_write.set()
                leave.wait(5)
                return "slow"

        trace = make_trace()
        trace.data.spans[0].attributes["slow"] = Slow()
        writer = threading.Thread(target=store.write, args=([trace],))
        writer.start()
        assert in_write.wait(5)
        threading.Timer(0.05, leave.set).start()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                store.write([make_trace()])
                code = 0
            finally:
                os._exit(code)
        writer.join()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert len(read(store)) == 2

    def test_it_closes_and_opens_again(self, store: SQLiteStore, path: Path, make_trace: MakeTrace) -> None:
        """Closed, the file is alone again; used, it is open again."""
        store.write([make_trace()])
        read(store)
        store.close()
        store.close()
        assert [found.name for found in path.parent.iterdir()] == ["wherefrom.db"]
        store.write([make_trace()])
        assert len(read(store)) == 2

    def test_readers_do_not_wait_for_a_writer(
        self, store: SQLiteStore, path: Path, make_trace: MakeTrace
    ) -> None:
        """Reads complete while a transaction is open."""
        store.write([make_trace()])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM traces")
        assert len(read(store)) == 1
        other.close()


@pytest.mark.parametrize(
    "url", ["", "sqlite:", "sqlite:///", "mysql:///x", "sqlite://host/x", "wherefrom.db"]
)
def test_an_unknown_store_is_named(url: str) -> None:
    """The error for an unknown store URL shows a valid one."""
    with pytest.raises(StoreError, match=r"it takes sqlite:///file\.db"):
        open_store(url)
