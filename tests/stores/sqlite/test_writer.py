"""How few calls of the driver a batch takes: each may cost the writer 5 ms while requests keep the GIL."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.facts import SOURCE, make_facts
from wherefrom import Span, SpanEvent, SpanStatus, Trace, TraceClient, TraceInfo
from wherefrom._buckets import bucket_of, first_of
from wherefrom.exceptions import StoreError
from wherefrom.model import SpanStatusCode, TraceData
from wherefrom.stores.sqlite.file import ensure_logarithm
from wherefrom.stores.sqlite.store import SQLiteStore

MakeTrace = Callable[..., Trace]
FACTS_STARTED_NS = 1_700_000_000 * 10**9


class Rows(list[Any]):
    """What a cursor has found."""

    def fetchall(self) -> list[Any]:
        return self

    def fetchone(self) -> Any:
        return self[0]


class Counted(sqlite3.Connection):
    """Counts what gives up the GIL: statements, and rows that come back."""

    statements = 0
    rows = 0

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        self.statements += 1
        found = super().execute(sql, parameters).fetchall()
        self.rows += len(found)
        return Rows(found)


def test_a_batch_takes_few_statements(tmp_path: Path, make_trace: MakeTrace) -> None:
    """1,024 traces of one span are written with two inserts that return nothing, not with two thousand."""
    store = SQLiteStore(tmp_path / "wherefrom.db")
    store.write([make_trace()])
    store.close()
    counted = sqlite3.connect(store.path, isolation_level=None, factory=Counted)
    store._open.writer = counted
    store.write([make_trace(tags={"number": str(number)}) for number in range(1024)])
    store.close()
    begin, last_id, known, learn, source, insert, listing, rollups = 1, 1, 1, 2, 1, 2, 4, 1
    statements = begin + last_id + known + learn + source + insert + listing + rollups
    assert counted.statements == statements
    assert counted.rows == last_id + known + source + 1
    assert count(tmp_path / "wherefrom.db") == 1025


def test_a_trace_that_comes_twice_in_one_batch(tmp_path: Path, make_trace: MakeTrace) -> None:
    """Its values are listed as they are in the end, once each."""
    store = SQLiteStore(tmp_path / "wherefrom.db")
    store.write([make_trace()])
    first, again, other = (
        make_trace(tags={"a": "1"}),
        make_trace(tags={"b": "2"}),
        make_trace(tags={"a": "3"}),
    )
    again.info.trace_id = first.info.trace_id
    store.write([first, again, other, again])
    with closing(sqlite3.connect(store.path)) as connection:
        listed = connection.execute(
            "SELECT traces.trace_id, known_keys.key, trace_values.value FROM trace_values"
            " JOIN known_keys ON known_keys.id = trace_values.key"
            " JOIN traces ON traces.id = trace_values.trace"
            " WHERE family = 'tag' ORDER BY trace_values.value"
        ).fetchall()
    store.close()
    assert listed == [
        (first.info.trace_id, "a", "1"),
        (first.info.trace_id, "b", "2"),
        (other.info.trace_id, "a", "3"),
    ]
    assert count(tmp_path / "wherefrom.db") == 3 + 1


def test_an_sqlite_that_takes_few_parameters(tmp_path: Path, make_trace: MakeTrace) -> None:
    """Before 3.32 SQLite took 999 parameters a statement: a batch is then written in smaller pieces."""
    store = SQLiteStore(tmp_path / "wherefrom.db")
    store._connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    store.write([make_trace() for _ in range(301)])
    store.close()
    assert count(tmp_path / "wherefrom.db") == 301


def count(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        found: int = connection.execute(
            "SELECT count(*) FROM traces JOIN spans ON trace = traces.id"
        ).fetchone()[0]
    finally:
        connection.close()
    return found


@pytest.mark.parametrize("where", ["name", "metadata", "inputs", "attribute", "status"])
def test_a_nul_is_stored_whole(tmp_path: Path, make_trace: MakeTrace, where: str) -> None:
    """SQLite's JSON functions end a string at its first NUL: such a trace is written without them."""
    text = "before\0after"
    odd, plain = make_trace(), make_trace()
    span = odd.data.spans[0]
    if where == "name":
        odd.info.tags["mlflow.traceName"] = span.name = text
    elif where == "metadata":
        odd.info.trace_metadata["own"] = odd.info.tags["tag"] = text
    elif where == "inputs":
        span.inputs, span.outputs = {"q": text}, text
    elif where == "attribute":
        span.attributes = {"a": text, "b": [text]}
        span.events.append(SpanEvent("e", 1, {"c": text}))
    else:
        span.status = SpanStatus(SpanStatusCode.ERROR, text)
    with closing(SQLiteStore(tmp_path / "wherefrom.db")) as store:
        store.write([plain, odd, make_trace()])
        assert TraceClient(store).get_trace(odd.info.trace_id) == odd
        assert count(store.path) == 3
        store.write([odd])
        assert count(store.path) == 3


def test_facts_on_an_sqlite_that_takes_few_parameters(tmp_path: Path) -> None:
    """They are bound in smaller pieces."""
    with closing(SQLiteStore(tmp_path / "wherefrom.db")) as store:
        store._connection().setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
        store.write_records([make_facts(number) for number in range(301)], {SOURCE.digest: SOURCE})
        assert count(store.path) == 301


def test_facts_of_a_failed_batch_are_not_written_with_the_next(tmp_path: Path) -> None:
    """A batch that cannot be written leaves nothing behind, and its traces can be written again."""
    good, bad = make_facts(1), make_facts(2, name=None)
    with closing(SQLiteStore(tmp_path / "wherefrom.db")) as store:
        with pytest.raises(StoreError):
            store.write_records([good, bad], {SOURCE.digest: SOURCE})
        for _ in range(2):
            store.write_records([good], {SOURCE.digest: SOURCE})
        assert count(store.path) == 1


def buckets(path: Path) -> list[tuple[Any, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.execute("SELECT duration_us, duration_bucket FROM traces ORDER BY id"))


# The edges of buckets, up to 4 days, and what no clock measures.
DURATIONS = sorted(
    {first_of(bucket) + off for bucket in range(1342) for off in (-1, 0)} | {-5, 2**50 * 1000, 2**52 * 1000}
)


@pytest.mark.parametrize("note", ["", "a\0b"])
def test_a_trace_is_stored_with_the_bucket_of_its_duration(tmp_path: Path, note: str) -> None:
    """SQL computes the same as Python; a trace with a NUL is not written by way of JSON."""
    with closing(SQLiteStore(tmp_path / "wherefrom.db")) as store:
        some = DURATIONS[:: 1 if not note else 50]
        store.write([timed_trace(number, us, note) for number, us in enumerate(some)])
        assert buckets(store.path) == [(us, bucket_of(us)) for us in some]


def test_facts_are_stored_with_the_bucket_of_their_duration(tmp_path: Path) -> None:
    with closing(SQLiteStore(tmp_path / "wherefrom.db")) as store:
        some = [us for us in DURATIONS if us < 2**50]
        facts = [make_facts(number, ended_ns=FACTS_STARTED_NS + us * 1000) for number, us in enumerate(some)]
        store.write_records(facts, {SOURCE.digest: SOURCE})
        assert buckets(store.path) == [(us, bucket_of(us)) for us in some]


def test_a_trace_that_completes_gets_its_bucket(tmp_path: Path) -> None:
    """One that comes again with the same milliseconds keeps its microseconds, and their bucket."""
    with closing(SQLiteStore(tmp_path / "wherefrom.db")) as store:
        for us, stored in ((None, None), (5123, 5123), (5900, 5123), (6000, 6000)):
            store.write([timed_trace(1, us)])
            assert buckets(store.path) == [(stored, None if stored is None else bucket_of(stored))]


def test_an_sqlite_without_logarithms_is_given_one(tmp_path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.create_function("ln", 1, None)
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("SELECT ln(2)")
        ensure_logarithm(connection)
        assert connection.execute("SELECT ln(2)").fetchone() == (math.log(2),)


def timed_trace(number: int, us: int | None, note: str = "") -> Trace:
    ms = None if us is None else us // 1000
    info = TraceInfo(f"tr-{number:032x}", "default", 1_700_000_000_000, ms, trace_metadata={"note": note})
    start = FACTS_STARTED_NS
    end = None if us is None else start + us * 1000
    # Of more ns than fit into 64 bits the info alone tells the duration.
    spans = [Span(info.trace_id, f"{number:016x}", None, "root", "SERVER", start, end)]
    return Trace(info, TraceData(spans if us is None or us < 2**50 else []))
