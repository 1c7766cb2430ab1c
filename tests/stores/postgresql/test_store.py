"""A fleet on one PostgreSQL: starts, roles, failures, late spans, partitions."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.pq import PipelineStatus
from sqlalchemy import event
from typer.testing import CliRunner

from tests.conftest import MakeTrace
from tests.postgresql_server import PostgreSQLServer
from tests.sql import execute
from wherefrom import Trace, TraceClient, keys
from wherefrom.cli.app import app
from wherefrom.exceptions import (
    FilterError,
    QueryCancelledError,
    QueryTimeoutError,
    StoreError,
    StoreUnavailableError,
    StoreVersionError,
    TraceNotFoundError,
)
from wherefrom.model import Source, Span, SpanStatus, SpanStatusCode, TraceState
from wherefrom.process import ProcessReport, Stats
from wherefrom.query import parse_filter
from wherefrom.query.order import NEWEST_FIRST
from wherefrom.stores import Selection
from wherefrom.stores.deadline import Deadline
from wherefrom.stores.postgresql import schema, snapshot, writer
from wherefrom.stores.postgresql.address import parse_address
from wherefrom.stores.postgresql.connection import store_error
from wherefrom.stores.postgresql.store import PostgreSQLStore
from wherefrom.stores.sql.schema import metadata

NOW = datetime.now(UTC)
DOCUMENT = Path(__file__).parents[3] / "docs" / "postgresql.md"
GRANTS = DOCUMENT.read_text().partition("```sql\n")[2].partition("```")[0]
AGES = {"old": 100, "new": 0}


def ago(**amount: float) -> int:
    return int((NOW - timedelta(**amount)).timestamp() * 1000)


def names(store: PostgreSQLStore, text: str | None = None) -> list[str | None]:
    return [trace.info.name for trace in TraceClient(store).search_traces(filter_string=text)]


def scalar(store: PostgreSQLStore, query: str, *values: Any) -> Any:
    with store._connected() as connection:
        row = connection.execute(query.encode(), values).fetchone()
    return None if row is None else row[0]


NewDatabase = Callable[[str], str]


@pytest.fixture
def new_database(server: PostgreSQLServer) -> Iterator[NewDatabase]:
    """Makes a database with an encoding; gives its URL."""
    made: list[str] = []

    def make(encoding: str) -> str:
        made.append(f"database_{next(server.numbers)}")
        with server.connect() as connection:
            query = f"CREATE DATABASE {made[-1]} ENCODING '{encoding}' TEMPLATE template0"
            connection.execute(query.encode())
        return server.url().replace("/postgres?", f"/{made[-1]}?")

    yield make
    with server.connect() as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


class TestStart:
    def test_many_start_at_once(self, url: str, make_trace: MakeTrace) -> None:
        """Each makes the tables, the source and the keys that it does not find."""
        source = Source({"app_version": "1"})
        barrier = threading.Barrier(12)

        def start(number: int) -> None:
            with closing(PostgreSQLStore(url)) as store:
                barrier.wait(60)
                metadata = {**source, f"key{number}": "v"}
                store.write([make_trace(str(number), trace_metadata=metadata, source=source)])

        with ThreadPoolExecutor(12) as threads:
            list(threads.map(start, range(12)))
        with closing(PostgreSQLStore(url)) as store, store.snapshot() as found:
            state = found.state()
            assert (state.traces, state.sources, state.experiments) == (12, 1, 1)
            assert found.keys("metadata") == sorted(["app_version", *(f"key{n}" for n in range(12))])

    def test_a_schema_is_a_store_of_its_own(self, new_database: NewDatabase, make_trace: MakeTrace) -> None:
        """Also beside one in ``public``, which it neither reads nor prunes."""
        url = new_database("UTF8")
        with closing(PostgreSQLStore(url)) as public, closing(PostgreSQLStore(f"{url}&schema=own")) as own:
            public.write([make_trace("public", request_time=ago(days=9))])
            assert own.missing() is not None
            assert (own.prune(ago()), names(own)) == (0, [])
            own.write([make_trace("own", request_time=ago(days=9))])
            assert (names(public), names(own, "text LIKE '%own%'")) == (["public"], ["own"])
            assert own.prune(ago()) == 1
            assert (names(public), names(own)) == (["public"], [])

    def test_any_text_can_be_written(
        self, store: PostgreSQLStore, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever encoding the environment has for other programs."""
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
        store.write([make_trace("é ☃")])
        assert names(store, "name = 'é ☃'") == ["é ☃"]

    def test_a_database_that_cannot_hold_any_text_is_refused(
        self, new_database: NewDatabase, make_trace: MakeTrace
    ) -> None:
        """By name, before there are tables in it."""
        with closing(PostgreSQLStore(new_database("LATIN1"))) as store:
            for attempt in (store.upgrade, lambda: store.write([make_trace("a")])):
                with pytest.raises(StoreError, match="has the encoding LATIN1"):
                    attempt()
            assert store.missing() is not None
        with closing(PostgreSQLStore(new_database("SQL_ASCII"))) as store:
            store.write([make_trace("é ☃")])
            assert names(store) == ["é ☃"]

    def test_reading_creates_nothing(self, store: PostgreSQLStore) -> None:
        """Neither does editing; the answers are those of an empty store."""
        missing = store.missing()
        assert missing is not None
        assert "there is no store in the schema own_" in missing
        with store.snapshot() as empty:
            assert empty.search(Selection(), NEWEST_FIRST, 10).keys == []
            assert (empty.state().kind, empty.state().traces) == ("postgresql", 0)
        assert (store.delete("default"), store.prune(ago()), store.vacuum()) == (0, 0, (0, 0))
        with pytest.raises(TraceNotFoundError):
            store.set_tag("tr-1", "a", "b")
        with pytest.raises(TraceNotFoundError):
            store.delete_tag("tr-1", "a")
        assert store.health().problems == [missing]
        assert store.missing() is not None

    def test_the_tables_are_those_of_all_stores(self, store: PostgreSQLStore) -> None:
        """What is shared reads every column of them; each may have more."""
        store.upgrade()
        with store._connected() as connection:
            for table in metadata.sorted_tables:
                found = connection.execute(
                    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s)", (table.name,)
                ).fetchall()
                assert {column.name for column in table.columns} <= {name for (name,) in found}, table.name

    def test_a_service_file_names_the_server(
        self,
        server: PostgreSQLServer,
        url: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        make_trace: MakeTrace,
    ) -> None:
        """As every program that uses libpq reads it."""
        file = tmp_path / "services.conf"
        file.write_text(f"[traces]\nhost={server.folder}\nuser=postgres\ndbname=postgres\n")
        monkeypatch.setenv("PGSERVICEFILE", str(file))
        named = f"postgresql://?service=traces&schema={url.rpartition('=')[2]}"
        with closing(PostgreSQLStore(named)) as store:
            store.write([make_trace("a")])
            assert names(store) == ["a"]
            assert store.health().url == named

    def test_the_command_creates_the_tables(self, url: str, store: PostgreSQLStore) -> None:
        """Again it does nothing; tables of a newer version are refused by name."""
        for _ in range(2):
            result = CliRunner().invoke(app, ["db", "upgrade", "--store", url])
            assert "has schema version 1" in result.output
        assert store.missing() is None
        scalar(store, "UPDATE schema_version SET version = 99 RETURNING version")
        for fails in (store.upgrade, PostgreSQLStore(url).missing):
            with pytest.raises(StoreVersionError, match="upgrade wherefrom"):
                fails()
        assert "schema version 99" in PostgreSQLStore(url).health().problems[0]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_fork_uses_connections_of_its_own(self, store: PostgreSQLStore, make_trace: MakeTrace) -> None:
        """Those of the parent go on."""
        store.write([make_trace("parent")])
        assert names(store) == ["parent"]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store.write([make_trace("child")])
                code = 0 if "child" in names(store) else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        store.write([make_trace("parent again")])
        assert sorted(map(str, names(store))) == ["child", "parent", "parent again"]


class TestRoles:
    @pytest.fixture
    def roles(self, server: PostgreSQLServer, store: PostgreSQLStore) -> Iterator[Callable[[str], str]]:
        """A role that reads and one that writes, as the documentation grants them; gives their URLs."""
        name = store.url.rpartition("=")[2]
        store.upgrade()
        with server.connect() as connection:
            connection.execute(
                f"""
                CREATE ROLE {name}_reader LOGIN; CREATE ROLE {name}_writer LOGIN;
                {GRANTS.replace(" traces", f" {name}").replace("wherefrom_", f"{name}_")}
                """.encode()
            )
        yield lambda role: server.url(user=f"{name}_{role}", schema=name)
        with server.connect() as connection:
            connection.execute(
                f"DROP OWNED BY {name}_reader, {name}_writer; DROP ROLE {name}_reader, {name}_writer".encode()
            )

    def test_a_role_that_reads(
        self, store: PostgreSQLStore, make_trace: MakeTrace, roles: Callable[[str], str]
    ) -> None:
        """It searches, shows and follows; it cannot write, edit or delete."""
        store.write([trace := make_trace("GET /")])
        with closing(PostgreSQLStore(roles("reader"))) as reader:
            assert names(reader, "text LIKE '%GET%'") == ["GET /"]
            reader.wait(0)
            health = reader.health()
            assert (health.writable, health.problems, len(health.warnings)) == (False, [], 1)
            changes: list[Callable[[], object]] = [
                lambda: reader.write([make_trace()]),
                lambda: reader.set_tag(trace.info.trace_id, "a", "b"),
                lambda: reader.prune(ago()),
            ]
            for change in changes:
                with pytest.raises(StoreError, match="permission denied"):
                    change()
        for command in (["search"], ["show", trace.info.trace_id], ["compare"], ["doctor"]):
            result = CliRunner().invoke(app, [*command, "--store", roles("reader")])
            assert result.exit_code == 0, result.output

    def test_a_role_that_writes(
        self, store: PostgreSQLStore, make_trace: MakeTrace, roles: Callable[[str], str]
    ) -> None:
        """It records, adds late spans and reports; it neither deletes nor makes tables."""
        with closing(PostgreSQLStore(roles("writer"))) as app_store:
            # In months that have no partition yet, or never will.
            for number, time in enumerate((ago(), ago(days=300), 1_000)):
                app_store.write([make_trace(str(number), request_time=time)])
                app_store.write([make_trace(str(number), request_time=time)])
            late = make_trace("late", trace_id=TraceClient(store).search_traces()[0].info.trace_id)
            app_store.write([late])
            # The origin of a trace takes the place of a part, in the partition of another month.
            part = make_trace("part", request_time=ago(), trace_metadata={keys.PART: "1", "own": "x"})
            app_store.write([part])
            origin = make_trace("origin", trace_id=part.info.trace_id, request_time=ago(days=40))
            origin.info.trace_metadata["k"] = "v"
            app_store.write([origin])
            app_store.report(ProcessReport("h", 1, 2, 3, Stats(), {}, None))
            with pytest.raises(StoreError, match="permission denied"):
                app_store.prune(ago())
        with store.snapshot() as found:
            assert found.count(Selection()) == 7
            assert [report.host for report in found.processes()] == ["h"]
        assert names(store, "metadata.k = 'v'") == ["origin"]
        assert names(store, "metadata.own = 'x'") == []


class TestFailures:
    def test_a_server_that_stops_and_comes_back(
        self, server: PostgreSQLServer, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        """A write fails as one to try again, and the same call succeeds later; so does a question."""
        store.write([make_trace("before")])
        assert names(store) == ["before"]
        store.wait(0)
        server.stop()
        try:
            for attempt in (
                lambda: store.write([make_trace("lost")]),
                lambda: names(store),
                lambda: store.wait(1),
                lambda: PostgreSQLStore(store.url).missing(),
            ):
                with pytest.raises(StoreUnavailableError, match="cannot be reached now"):
                    attempt()
            assert "cannot be reached now" in store.health().problems[0]
        finally:
            server.start()
        store.write([make_trace("after")])
        store.wait(0)
        assert sorted(map(str, names(store))) == ["after", "before"]

    def test_a_connection_that_the_server_ends(self, store: PostgreSQLStore, make_trace: MakeTrace) -> None:
        """In the middle of the queue's work: the batch is written when it is tried again."""
        store.write([make_trace("a")])
        end_connections(store)
        batch = [make_trace("b")]
        with pytest.raises(StoreUnavailableError):
            store.write(batch)
        store.write(batch)
        store.write(batch)  # as after an acknowledgement that was lost
        assert sorted(map(str, names(store))) == ["a", "b"]

    def test_a_source_that_another_process_deleted(
        self, url: str, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        """The batch is to be tried again, and adds the source again."""
        source = Source({"app_version": "1"})
        trace = make_trace("a", trace_metadata=dict(source), source=source)
        store.write([trace])
        with closing(PostgreSQLStore(url)) as other:
            assert other.delete("default", trace_ids=[trace.info.trace_id]) == 1
        assert scalar(store, "SELECT count(*) FROM sources") == 0
        with pytest.raises(StoreUnavailableError, match="source was deleted"):
            store.write([trace])
        store.write([trace])
        assert names(store, "metadata.app_version = '1'") == ["a"]

    def test_a_question_has_a_bound(self, store: PostgreSQLStore, make_trace: MakeTrace) -> None:
        """The statement timeout of the URL; a deadline is another; both end the statement on the server."""
        store.write([make_trace("a")])
        slow = "SELECT pg_sleep(60)"

        def ask(asked: PostgreSQLStore, **options: Any) -> None:
            with asked.snapshot(**options) as found:
                found.connection.exec_driver_sql(slow)

        with (
            closing(PostgreSQLStore(f"{store.url}&statement_timeout=0.1")) as bounded,
            pytest.raises(QueryTimeoutError, match=r"longer than 0\.1 s"),
        ):
            ask(bounded)
        with pytest.raises(QueryTimeoutError, match=r"longer than 0\.1 s"):
            ask(store, deadline_s=0.1)
        with Deadline() as deadline:
            threading.Timer(0.05, deadline.cancel).start()
            with pytest.raises(QueryCancelledError):
                ask(store)
        with Deadline() as deadline, store.snapshot() as found:
            deadline.cancel()
            with pytest.raises(QueryCancelledError), found.until(deadline):
                found.count(Selection())
        running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = %s"
        assert scalar(store, running, slow) == 0
        assert names(store) == ["a"]

    def test_a_timeout_is_known_in_any_language(self) -> None:
        """What the statement had is said; where it had none, somebody cancelled it."""
        cancelled = errors.QueryCanceled("storniere Anfrage wegen Zeitüberschreitung der Anfrage")
        address = parse_address("postgresql://h/db")
        assert type(store_error(cancelled, address, is_bounded=True)) is QueryTimeoutError
        assert type(store_error(cancelled, address)) is StoreError
        unbounded = parse_address("postgresql://h/db?statement_timeout=0")
        assert type(store_error(cancelled, unbounded, is_bounded=True)) is StoreError

    def test_a_batch_of_a_process_that_was_suspended_is_to_be_tried_again(self) -> None:
        """The server has ended its transaction meanwhile."""
        ended = errors.IdleInTransactionSessionTimeout("terminating connection")
        assert type(store_error(ended, parse_address("postgresql://h/db"))) is StoreUnavailableError

    def test_readers_do_not_wait_for_a_batch(self, store: PostgreSQLStore, make_trace: MakeTrace) -> None:
        """However long the server takes for it."""
        store.write([make_trace("a")])
        with ThreadPoolExecutor(1) as threads, store._lock:
            assert threads.submit(names, store).result(60) == ["a"]
            threads.submit(store.wait, 0).result(60)

    def test_ctrl_c_ends_the_statement_on_the_server(
        self, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        """And is raised as it is."""
        store.write([make_trace("a")])

        def interrupt() -> None:
            with store.snapshot() as found:
                found.count(Selection())
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupt()
        assert names(store) == ["a"]

    def test_any_number_of_snapshots_may_be_open(self, store: PostgreSQLStore, make_trace: MakeTrace) -> None:
        """Afterwards one connection is kept."""
        store.write([make_trace("a")])
        with ExitStack() as stack:
            for _ in range(20):
                assert stack.enter_context(store.snapshot()).count(Selection()) == 1
        assert store.engine.pool.checkedin() == 1  # type: ignore[attr-defined]

    def test_a_snapshot_that_could_not_begin_costs_no_other(
        self, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        """Neither after the timeout, nor after the deadline, on a new connection and on one that was used."""
        store.write([make_trace("a")])
        with closing(PostgreSQLStore(f"{store.url}&statement_timeout=1")) as asked:
            asked.missing()
            for _ in range(2):
                with locked(store, "sources"):
                    with pytest.raises(QueryTimeoutError):
                        names(asked)
                    with pytest.raises(QueryTimeoutError), asked.snapshot(deadline_s=0.2):
                        pass
                assert names(asked) == ["a"]

    def test_tables_that_are_made_again_are_read(self, store: PostgreSQLStore, make_trace: MakeTrace) -> None:
        """Also if the store was read when there were none."""
        store.write([make_trace("a")])
        assert names(store) == ["a"]
        execute(store, "ALTER TABLE sources RENAME TO others")
        with pytest.raises(StoreError):
            names(store)
        execute(store, "ALTER TABLE others RENAME TO sources")
        assert names(store) == ["a"]

    def test_an_answer_stands_if_the_server_goes_before_the_end(
        self, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        store.write([make_trace("a")])
        with store.snapshot() as found:
            assert found.count(Selection()) == 1
            end_connections(store)
        assert names(store) == ["a"]

    def test_no_partition_is_dropped_under_a_snapshot(
        self, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        """Not even before its first look at traces: rollups and traces are those of one moment."""
        store.write([make_trace("a", request_time=ago(days=100))])
        with store.snapshot() as found, psycopg.connect(store.url.partition("&schema=")[0]) as other:
            other.execute(
                f"SET search_path = {store.url.rpartition('=')[2]}; SET lock_timeout = 200".encode()
            )
            with pytest.raises(errors.LockNotAvailable):
                other.execute("LOCK TABLE traces IN ACCESS EXCLUSIVE MODE")
            assert found.count(Selection()) == 1

    def test_other_errors_of_the_server_are_not_tried_again(
        self, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        store.write([make_trace("a")])
        execute(store, "ALTER TABLE sources RENAME TO others")
        with pytest.raises(StoreError) as caught:
            names(store)
        assert not isinstance(caught.value, StoreUnavailableError)


def end_connections(store: PostgreSQLStore) -> None:
    """As a server does that restarts."""
    others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    scalar(store, f"{others} AND application_name = 'wherefrom'")


@contextmanager
def locked(store: PostgreSQLStore, table: str) -> Iterator[None]:
    """While somebody changes a table."""
    with psycopg.connect(store.url.partition("&schema=")[0]) as other:
        other.execute(f"SET search_path = {store.url.rpartition('=')[2]}".encode())
        other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


def span(trace: Trace, number: int, name: str, code: str = "OK") -> Span:
    status = SpanStatus(SpanStatusCode(code))
    return Span(trace.info.trace_id, f"{number:016x}", None, name, "TOOL", number, number + 1, status)


class TestMerging:
    def test_spans_come_late_in_any_batch(
        self, url: str, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        """In the same one, or by another process; a trace that is there twice is one."""
        first = make_trace("GET /", trace_metadata={"a": "1"}, tags={"t": "old"})
        late = make_trace("GET /", trace_id=first.info.trace_id, trace_metadata={"b": "2"}, tags={"t": "new"})
        late.info.request_time += 86_400_000 * 60  # its own time is not that of the trace
        late.info.state = TraceState.ERROR
        late.data.spans[:] = [span(late, 1, "late")]
        later = make_trace("GET /", trace_id=first.info.trace_id)
        later.data.spans[:] = [
            span(later, 1, "renamed", "ERROR"),
            span(later, 2, "later"),
            span(later, 2, "x"),
        ]
        store.write([first, late, make_trace("other")])
        with closing(PostgreSQLStore(url)) as other:
            other.write([later])
        found = TraceClient(store).get_trace(first.info.trace_id)
        assert {one.name for one in found.data.spans} == {"GET /", "renamed", "x"}
        assert (found.info.state, found.info.request_time) == (TraceState.ERROR, first.info.request_time)
        own = {key: value for key, value in found.info.trace_metadata.items() if key in "ab"}
        assert (own, found.info.tags["t"]) == ({"a": "1", "b": "2"}, "old")
        for condition in ("metadata.a = '1'", "metadata.b = '2'", "tag.t = 'old'", "span.name = 'renamed'"):
            assert len(names(store, condition)) == 1
        assert names(store, "tag.t = 'new'") == []

    def test_two_writers_of_the_same_traces_do_not_wait_for_each_other(
        self, url: str, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        """In whatever order each has them."""
        made = [make_trace(str(number)) for number in range(40)]
        barrier = threading.Barrier(2)

        def write(batch: list[Trace]) -> None:
            with closing(PostgreSQLStore(url)) as writer_store:
                writer_store.upgrade()
                for start in range(0, 40, 10):
                    barrier.wait(60)
                    writer_store.write(batch[start : start + 10])
                    writer_store.write(batch)

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(write, (made, made[::-1])))
        assert len(names(store)) == 40

    def test_the_index_of_values_follows_edits(self, store: PostgreSQLStore, make_trace: MakeTrace) -> None:
        """Also past the length that it lists, and for keys that it does not know."""
        trace = make_trace("a", tags={"team": "core"})
        store.write([trace, make_trace("b", tags={"team": "core"})])
        store.set_tag(trace.info.trace_id, "team", "x" * 200)
        assert names(store, f"tag.team = '{'x' * 200}'") == ["a"] or names(store, "tag.team LIKE 'xx%'")
        assert len(names(store, "tag.team LIKE 'x%'")) == 1
        assert len(names(store, "tag.team = 'core'")) == 1
        store.delete_tag(trace.info.trace_id, "team")
        assert scalar(store, "SELECT count(*) FROM trace_values") == 1
        store.delete("default")
        assert scalar(store, "SELECT count(*) FROM trace_values") == 0

    def test_keys_past_the_limit_are_found(
        self, store: PostgreSQLStore, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a row, and without an index."""
        for name in ("MAX_KEYS", "MAX_NEW_KEYS"):
            monkeypatch.setattr(f"wherefrom.stores.sql.known_keys.{name}", 3)
        store.write([make_trace(str(n), trace_metadata={f"k{n}": "v" * (100 * n)}) for n in range(6)])
        store.write([make_trace("again", trace_metadata={"k5": "v"})])
        for number in range(6):
            assert str(number) in [str(name)[-1] for name in names(store, f"metadata.k{number} IS NOT NULL")]
        assert len(names(store, "metadata.k5 = 'v'")) == 1

    def test_more_sources_than_are_cached(
        self, store: PostgreSQLStore, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer, "_MAX_KNOWN", 2)
        sources = [Source({"app_version": str(number)}) for number in range(5)]
        for _ in range(2):
            store.write([make_trace("a", trace_metadata=dict(one), source=one) for one in sources])
        assert scalar(store, "SELECT count(*) FROM sources") == 5


class TestPartitions:
    def test_retention_drops_them(self, store: PostgreSQLStore, make_trace: MakeTrace) -> None:
        """What is in the month of the limit, or in none, is deleted row by row."""
        times = [1_000, ago(days=800), ago(days=200), ago(days=100), ago(days=1), ago(days=-40), 2**42]
        store.write([make_trace(str(number), request_time=time) for number, time in enumerate(times)])
        partition = f"SELECT tableoid::regclass::text FROM traces WHERE request_time = {ago(days=200)}"
        assert scalar(store, partition) != "traces_other"
        progress: list[int] = []
        assert store.prune(ago(days=50), on_progress=progress.append) == 4
        assert progress[-1] == 4
        assert sorted(map(str, names(store))) == ["4", "5", "6"]
        assert scalar(store, partition) is None
        assert scalar(store, "SELECT count(*) FROM trace_ids") == 3
        assert scalar(store, "SELECT count(*) FROM spans") == 3
        before, after = store.vacuum()
        assert before > 0
        assert after > 0

    def test_they_are_made_ahead(self, store: PostgreSQLStore, make_trace: MakeTrace) -> None:
        """For the months that come, and for those of a batch; at most for two years."""
        store.write([make_trace("old", request_time=ago(days=300))])
        count = scalar(store, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'traces'::regclass")
        assert count == 3 + schema.MONTHS_AHEAD  # with the one for all others
        ahead = schema.months_of([])
        assert len(ahead) == 1 + schema.MONTHS_AHEAD
        assert schema.months_of([-1, 0, 2**62, ago(days=1000)]) == ahead

    def test_a_partition_whose_rows_are_elsewhere_is_not_made(
        self, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        """Its traces go there too, and none is lost."""
        store.upgrade()
        with store._connected() as connection:
            for suffix in [*schema.partitions_before(connection, 2**60)]:
                schema.drop_partitions(connection, suffix)
        store._ids.months = set(range(10**5))  # as in a process that made them before
        store.write([make_trace("a", request_time=ago())])
        store._ids = writer.KnownIds()
        store.write([make_trace("b", request_time=ago())])
        assert sorted(map(str, names(store))) == ["a", "b"]

    def test_partitions_that_cannot_be_made_now_are_made_later(
        self, store: PostgreSQLStore, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A minute later, unless their traces are elsewhere by then."""
        store.upgrade()
        seconds = [0.0]
        monkeypatch.setattr(writer, "monotonic", lambda: seconds[0])

        def partitions() -> list[str]:
            with store._connected() as connection:
                return list(schema.partitions_before(connection, 2**60))

        with store._connected() as connection:
            for suffix in partitions():
                schema.drop_partitions(connection, suffix)

        def refuse(*_: Any) -> None:
            raise errors.LockNotAvailable("others read")

        with monkeypatch.context() as patched:
            patched.setattr(schema, "_create_partitions", refuse)
            store.write([make_trace("a", request_time=ago())])
        store.write([make_trace("b", request_time=ago())])
        assert partitions() == []
        seconds[0] += 60
        store.write([make_trace("c", request_time=ago())])
        # All but the month of the traces that are elsewhere: by now, another one may have begun.
        ahead = {schema._suffix(month) for month in schema.months_of([])}
        assert set(partitions()) == ahead - {f"{NOW:%Y_%m}"}
        assert sorted(map(str, names(store))) == ["a", "b", "c"]

    def test_the_background_thread_prunes(self, url: str, make_trace: MakeTrace) -> None:
        """One of the fleet, after a write."""
        with closing(PostgreSQLStore(url, retention_days=10)) as store:
            store.write(
                [make_trace("old", request_time=ago(days=100)), make_trace("new", request_time=ago())]
            )
            for thread in threading.enumerate():
                if thread.name == "wherefrom-upkeep":
                    thread.join(60)
            assert names(store) == ["new"]


class TestTail:
    def test_a_write_wakes_those_who_wait(
        self, url: str, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        """Long before the time is over; the first call returns at once."""
        store.upgrade()
        store.wait(60)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(store.wait, 600)
            with closing(PostgreSQLStore(url)) as other:
                other.write([make_trace("a")])
            waiting.result(60)
        store.wait(0)

    def test_a_trace_that_is_committed_late_is_not_missed(
        self, store: PostgreSQLStore, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its transaction began before those that were read meanwhile."""
        monkeypatch.setattr(snapshot, "STRETCH", 3)
        store.write([make_trace("first")])
        with store.snapshot() as found:
            cursor = found.cursor()
        with psycopg.connect(store.url.partition("&schema=")[0]) as slow:
            slow.execute(f"SET search_path = {store.url.rpartition('=')[2]}".encode())
            slow.execute(
                "INSERT INTO experiments (name) VALUES ('slow')"
            )  # now the transaction has its number
            store.write([make_trace("meanwhile")])
            seen = self.read(store, cursor)
            assert seen == ([], cursor) or seen[0] == []
            columns = "id, trace_id, experiment_id, source_id, state, request_time, metadata, tags"
            slow.execute(
                f"INSERT INTO traces ({columns}) SELECT id + 1000, 'tr-slow',"
                " experiment_id, source_id, state, request_time, metadata, tags FROM traces LIMIT 1".encode()
            )
        store.write([make_trace(str(number)) for number in range(4)])
        ids, position = [], seen[1]
        while (step := self.read(store, position))[0]:
            ids += step[0]
            position = step[1]
        assert len(ids) == 6

    def read(self, store: PostgreSQLStore, cursor: str) -> tuple[list[int], str]:
        with store.snapshot() as found:
            changes = found.changes(cursor, Selection(), 100)
            assert 0 < changes.done <= 1
            return changes.keys, changes.cursor

    def test_a_part_of_the_store_is_read_at_a_time(
        self, store: PostgreSQLStore, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also where nothing in it is selected."""
        monkeypatch.setattr(snapshot, "STRETCH", 3)
        store.write([make_trace(str(number)) for number in range(7)])
        store.write([make_trace("last", state=TraceState.ERROR)])
        selection = Selection(parse_filter("status = 'ERROR'"))
        with store.snapshot() as found:
            cursor: str | None = None
            steps: list[tuple[int, float]] = []
            while not steps or steps[-1][1] < 1:
                changes = found.changes(cursor, selection, 5)
                cursor = changes.cursor
                steps.append((len(changes.keys), changes.done))
        assert [count for count, _ in steps] == [0, 0, 1]


def test_regular_expressions_are_read_as_everywhere(store: PostgreSQLStore, make_trace: MakeTrace) -> None:
    """Over pairs of traces and of sources, and over the text of spans."""
    source = Source({"app_version": "1.0"})
    made = make_trace("Straße", trace_metadata={**source, "k": "é ß"}, source=source)
    made.data.spans[0].attributes["a"] = "x1"
    store.write([made, make_trace("b", trace_metadata={"k": "a"})])
    for condition in (
        r"name RLIKE '^\w+e$'", r"metadata.k RLIKE '^[\w ]{3}$'", r"metadata.app_version RLIKE '^\d\.0'",
        r"span.attributes.a RLIKE 'x\d'", r"NOT name RLIKE '^b'",
    ):  # fmt: skip
        assert names(store, condition) == ["Straße"], condition
    with store.snapshot() as found:
        tree = parse_filter("metadata.k RLIKE '^[a-z]$' AND status = 'OK'")
        assert found.count(Selection(tree)) == 1


def test_the_bounds_of_sources_are_looked_up_source_by_source(
    store: PostgreSQLStore, make_trace: MakeTrace
) -> None:
    """By the index on time, all traces would be read up to the first one of these sources."""
    sources = [Source({"build": name}) for name in "abc"]
    store.write([make_trace(source=source, trace_metadata=dict(source)) for source in sources])
    plans: list[str] = []
    with store.snapshot() as read:
        read.connection.exec_driver_sql("SET LOCAL enable_seqscan = off")

        def explain(*arguments: Any) -> None:
            driver: Any = read.connection.connection
            if "FROM traces" in arguments[2]:
                plan = driver.cursor().execute(f"EXPLAIN {arguments[2]}", arguments[3]).fetchall()
                plans.extend(line for (line,) in plan if " using " in line)

        event.listen(read.connection, "before_cursor_execute", explain)
        assert read.bounds(Selection(parse_filter("metadata.build IN ('a', 'b')"))) is not None
    assert plans
    assert all("source_id_request_time" in line for line in plans)


@contextmanager
def listened() -> Iterator[list[tuple[str, bool]]]:
    """The statements that are executed, and whether each is in a pipeline."""
    seen: list[tuple[str, bool]] = []
    execute = psycopg.Cursor.execute

    def listen(cursor: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        seen.append((query, cursor.connection.pgconn.pipeline_status == PipelineStatus.ON))
        return execute(cursor, query, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", listen)
        yield seen


def of_version_2(make_trace: MakeTrace) -> Trace:
    source = Source({"app_version": "2"})
    return make_trace("other", trace_metadata=dict(source), source=source)


class TestRoundTrips:
    """Between two hosts, a round trip takes longer than a search does."""

    @pytest.mark.parametrize(
        ("text", "searches"),
        [
            ("client_request_id = 'r1'", 1),
            ("metadata.tenant = 'rare'", 1),
            ("metadata.app_version = '1'", 1),
            ("span.name = 'a'", 1),
            ("metadata.unknown = 'x'", 0),
        ],
    )
    def test_a_search_takes_few(
        self, store: PostgreSQLStore, make_trace: MakeTrace, text: str, searches: int
    ) -> None:
        """One begins the transaction and reads what is known of the store, one reads what was found."""
        source = Source({"app_version": "1"})
        own = {**source, "tenant": "rare"}
        made = make_trace("a", client_request_id="r1", trace_metadata=own, source=source)
        store.write([made, of_version_2(make_trace)])
        names(store, text)
        with listened() as seen:
            assert len(names(store, text)) == searches
        assert [is_piped for _, is_piped in seen] == [False] * (1 + searches) + [True] * 3 * searches

    def test_values_are_looked_up_together(self, store: PostgreSQLStore, make_trace: MakeTrace) -> None:
        """Whatever their number."""
        sources = [Source({"app_version": "1", "region": region}) for region in "abc"]
        store.write([make_trace(one["region"], trace_metadata=dict(one), source=one) for one in sources])
        store.write(
            [make_trace("other", trace_metadata={"app_version": "2"}, source=Source({"app_version": "2"}))]
        )
        with listened() as seen:
            assert sorted(map(str, names(store, "metadata.app_version = '1'"))) == ["a", "b", "c"]
        assert [is_piped for query, is_piped in seen if "source_id =" in query] == [True] * 3

    def test_statements_stay_prepared(self, store: PostgreSQLStore, make_trace: MakeTrace) -> None:
        """From one search to the next, also after one that was refused."""
        store.write([make_trace("a")])
        names(store)
        with pytest.raises(FilterError):
            names(store, "nothing = 1")
        prepared = "SELECT count(*) FROM pg_prepared_statements WHERE name <> 'wherefrom_facts'"
        with store.snapshot() as found:
            assert found.connection.exec_driver_sql(prepared).scalar_one() >= 3

    def test_a_connection_that_was_closed_is_replaced(
        self, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        """Without a question whether it is there: the first statement says so."""
        store.write([make_trace("a")])
        assert names(store) == ["a"]
        end_connections(store)
        assert names(store) == ["a"]

    def test_what_is_known_is_of_this_store(
        self, url: str, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        """Also where the tables were made again meanwhile, and a source has the number of another one."""
        text = "metadata.app_version LIKE '%'"
        for version in ("1", "2"):
            source = Source({"app_version": version})
            with closing(PostgreSQLStore(url)) as writer_store:
                writer_store.write([make_trace(version, trace_metadata=dict(source), source=source)])
            assert names(store, f"metadata.app_version = '{version}'") == [version]
            (found,) = TraceClient(store).search_traces(filter_string=text)
            assert found.info.trace_metadata["app_version"] == version
            execute(store, f"DROP SCHEMA {url.rpartition('=')[2]} CASCADE")

    def test_of_many_sources_keys_and_experiments_some_are_looked_up(
        self, store: PostgreSQLStore, make_trace: MakeTrace
    ) -> None:
        """The answers are the same."""
        sources = [Source({"app_version": str(number)}) for number in range(120)]
        store.write(
            [
                make_trace(str(n), trace_metadata={**one, f"k{n}": "v"}, source=one, experiment=f"e{n}")
                for n, one in enumerate(sources)
            ]
        )
        for number in (0, 119):
            for text in (f"metadata.app_version = '{number}'", f"metadata.k{number} = 'v'"):
                (found,) = TraceClient(store).search_traces([f"e{number}"], text)
                assert found.info.trace_metadata["app_version"] == str(number)
        assert names(store, "metadata.k120 = 'v'") == []
        with store.snapshot() as read:
            assert len(read.experiments()) == len(read.keys("metadata")) - 1 == 120


@pytest.mark.parametrize(
    ("text", "unwanted"),
    [("tags.team = 'blue'", "count"), ("name = 'a'", "count"), ("span.content LIKE '%x%'", "OFFSET")],
)
def test_a_filter_of_one_condition_is_not_tried_first(
    store: PostgreSQLStore, make_trace: MakeTrace, text: str, unwanted: str
) -> None:
    """How many traces have a name decides nothing, and the newest spans take as long as all of them."""
    store.write([make_trace(name="a", tags={"team": "blue"})])
    with store.snapshot() as read, listened() as seen:
        read.search(Selection(parse_filter(text)), NEWEST_FIRST, 10)
    statements = [query for query, _ in seen]
    assert statements
    assert not any(unwanted in statement for statement in statements)
