"""What reaches the database: no text of a query, and the index that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from typing import Any

import pytest
from sqlalchemy import event

from tests.engines import IN_SQL, NewUrl, new_store
from tests.sql import noted
from wherefrom.client import TraceClient
from wherefrom.exceptions import FilterError
from wherefrom.keys import TRACE_NAME_TAG
from wherefrom.model import Source, Trace, TraceState
from wherefrom.query.tree import quote
from wherefrom.stores import Store
from wherefrom.stores.clickhouse.store import ClickHouseStore
from wherefrom.stores.sqlite.store import SQLiteStore

MARK = "zq7x"
HOSTILE = [
    f"{MARK}'",
    f'{MARK}"',
    f"{MARK}`",
    f"{MARK}\\",
    f"{MARK}\\'",
    f"{MARK};--",
    f"{MARK}/*",
    f"{MARK}\x00",
    f"{MARK}' OR '1'='1",
    f"{MARK}') UNION SELECT * FROM traces --",
    f"{MARK}'; DROP TABLE traces; --",
    f"$.{MARK}",
    f'$."{MARK}"',
    f"{MARK}:name",
    f"{MARK}%(name)s",
    f"{MARK}?",
    f"{MARK}]",
    f"{MARK}*[?]",
    f"{MARK}\u2028\u00e9\U0001f642",
    f"{MARK}{{}}",
]
MAYBE_NO_PATTERN = "tag.{key} RLIKE {value}"
PLACES = [
    "metadata.app_version = {value}",
    "metadata.app_version LIKE {value}",
    "metadata.{key} = '1'",
    MAYBE_NO_PATTERN,
    "tag.team IN ({value}, 'x')",
    "span.attributes.{key} ILIKE {value}",
    "span.name = {value} AND text LIKE {value}",
    "NOT (user = {value} OR session_id != {value})",
    "name NOT LIKE {value}",
    "request_id = {value} OR metadata.{key} IS NULL",
]


def as_key(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


@pytest.fixture(scope="module")
def hostile_store(new_url: NewUrl, make_trace: Any) -> Iterator[Store]:
    """A trace with every hostile text as a key, and one for each that has it as a value and as its name."""
    with new_store(new_url) as store:
        keyed = dict.fromkeys(HOSTILE, "1")
        store.write([make_trace(trace_metadata=dict(keyed), tags=dict(keyed))])
        store.write(
            [
                make_trace(text, trace_metadata={"k": text}, tags={"k": text, TRACE_NAME_TAG: text})
                for text in HOSTILE
            ]
        )
        yield store


@pytest.fixture
def client(hostile_store: Store) -> TraceClient:
    return TraceClient(hostile_store)


def test_no_text_of_a_filter_reaches_sql(hostile_store: Store, client: TraceClient) -> None:
    places = PLACES
    if isinstance(hostile_store, ClickHouseStore):  # conditions choose no index there, and searches are slow
        places = [MAYBE_NO_PATTERN, " OR ".join(f"({place})" for place in PLACES if "RLIKE" not in place)]
    for hostile, place in product(HOSTILE, places):
        text = place.format(value=quote(hostile), key=as_key(hostile))
        with noted(hostile_store) as statements, suppress(FilterError):  # some are no patterns
            client.search_traces(filter_string=text)
        assert not [statement for statement, _ in statements if MARK in statement], text


def test_no_other_argument_reaches_sql(hostile_store: Store, client: TraceClient) -> None:
    for hostile in HOSTILE:
        with noted(hostile_store) as statements:
            client.search_traces(experiment_ids=[hostile], order_by=[f"metadata.{as_key(hostile)} DESC"])
            for token in (hostile, "e30="):
                with pytest.raises(FilterError):
                    client.search_traces(page_token=token)
        assert not [statement for statement, _ in statements if MARK in statement], hostile


@pytest.mark.parametrize("family", ["metadata", "tag"])
def test_every_key_can_be_asked_for(client: TraceClient, family: str) -> None:
    for key in HOSTILE:
        field = f"{family}.{as_key(key)}"
        conditions = [f"{field} {rest}" for rest in ("= '1'", "= 1", "LIKE '_'", "IS NOT NULL", "IN ('1')")]
        # What all of them find and what any of them finds is one trace: so does each.
        for word in (" AND ", " OR "):
            assert len(client.search_traces(filter_string=word.join(conditions))) == 1, (key, word)
        without = client.search_traces(filter_string=f"{field} IS NULL")
        assert len(without) == len(HOSTILE), key
        assert key in client.search_traces(order_by=[field])[0].info.trace_metadata


def test_every_value_can_be_found(client: TraceClient) -> None:
    for value in HOSTILE:
        for family in ("metadata", "tag"):
            (found,) = client.search_traces(filter_string=f"{family}.k = {quote(value)}")
            assert found.info.name == value


def test_every_name_can_be_found(client: TraceClient) -> None:
    for name in HOSTILE:
        for condition in (f"= {quote(name)}", f"IN ({quote(name)})"):
            (found,) = client.search_traces(filter_string=f"name {condition}")
            assert found.info.name == name
    for condition in ("LIKE '%zq7x%'", "!= 'GET /'"):
        all_of_them = client.search_traces(filter_string=f"name {condition}")
        assert sorted(str(one.info.name) for one in all_of_them) == sorted(HOSTILE)


@pytest.fixture(scope="module")
def filled(new_url: NewUrl, make_trace: Any) -> Iterator[Store]:
    """Two versions, and enough traces that the newest are tried before all of them."""
    with new_store(new_url) as store:
        store.write(_two_versions(make_trace))
        yield store


def _two_versions(make_trace: Any) -> list[Trace]:
    versions = [Source({"app_version": version}) for version in ("1", "2")]
    traces: list[Trace] = []
    for number in range(1500):
        source = versions[number % 2]
        own = {"mlflow.trace.session": f"s{number % 20}", "k": "rare" if number == 3 else "common"}
        own["long"] = "x" * (1 if number == 4 else 1000)
        own["tenant"] = f"t{number % 40}" if number < 1480 else "other"
        state = TraceState.ERROR if number % 10 == 0 else TraceState.OK
        traces.append(
            make_trace(
                trace_id=f"tr-{number:032x}",
                request_time=1_700_000_000_000 + number,
                client_request_id=f"r{number}",
                trace_metadata={**source, **own},
                tags={
                    "mlflow.traceName": "GET /rare" if number == 3 else "GET /",
                    "t": "x" if number % 500 == 0 else "y",
                },
                source=source,
                state=state,
            )
        )
    return traces


@pytest.fixture
def many(filled: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("wherefrom.stores.sql.search.PROBES", (100, 1000))
    monkeypatch.setattr("wherefrom.stores.sql.plan.RARE", 100)
    return filled


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        (None, "USING INDEX ix_traces_request_time"),
        ("session_id = 's7'", "USING INDEX ix_traces_session_id (session_id=?)"),
        ("session_id IN ('s7', 's8') AND status = 'OK'", "USING INDEX ix_traces_session_id (session_id=?)"),
        ("client_request_id = 'r7'", "USING INDEX ix_traces_client_request_id (client_request_id=?)"),
        ("request_id = 'tr-0'", "USING INDEX sqlite_autoindex_traces_1 (trace_id=?)"),
        ("metadata.app_version = '1'", "USING INDEX ix_traces_source (source_id=?)"),
        ("metadata.app_version = '1' AND status = 'ERROR'", "USING INDEX ix_traces_source (source_id=?)"),
        ("metadata.app_version = '1' AND status = 'OK' AND name LIKE '%'", "ix_traces_source (source_id=?)"),
        ("status = 'ERROR' AND name LIKE '%'", "USING INDEX ix_traces_state (state=?)"),
        ("status != 'OK'", "USING INDEX ix_traces_state (state=?)"),
        ("timestamp > 1700000001490", "USING INDEX ix_traces_request_time (request_time>?)"),
        ("metadata.k = 'rare'", "trace_values USING PRIMARY KEY (key=? AND value=?)"),
        ("metadata.k LIKE '%r%' AND status = 'OK'", "trace_values USING PRIMARY KEY (key=? AND value=?)"),
        ("metadata.k != 'common'", "trace_values USING PRIMARY KEY (key=? AND value=?)"),
        ("metadata.k = 'common'", "trace_values USING PRIMARY KEY (key=? AND value=?)"),
        ("metadata.k = 'common' AND tag.t = 'y'", "USING INDEX ix_traces_request_time (request_time>?)"),
        ("metadata.k = 'common' AND tag.t = 'x'", "trace_values USING PRIMARY KEY (key=? AND value=?)"),
        ("metadata.k = 'common' AND timestamp < 1700000000050", "(key=? AND value=? AND request_time<?)"),
        ("name = 'GET /' AND status = 'ERROR' AND timestamp < 1700000000050", "USING INDEX ix_traces_state"),
        ("metadata.tenant LIKE 't1%'", "(key=? AND value=? AND request_time>? AND request_time<?)"),
        ("metadata.long LIKE 'x'", "SCAN traces"),
        ("metadata.long = 'x' AND status = 'OK'", "trace_values USING PRIMARY KEY (key=? AND value=?)"),
        ("name = 'GET /rare'", "traces USING INDEX ix_traces_name (name=?)"),
        ("name ILIKE '%RARE'", "traces USING INDEX ix_traces_name (name=?)"),
    ],
)
@pytest.mark.parametrize("new_url", ["sqlite"], indirect=True)
def test_the_index_that_serves_a_search(many: SQLiteStore, text: str | None, plan: str) -> None:
    seen: list[str] = []

    def note(connection: Any, _record: Any) -> None:
        connection.set_trace_callback(seen.append)

    many.engine.dispose()
    event.listen(many.engine, "connect", note)
    assert TraceClient(many).search_traces(filter_string=text, max_results=20) or "tr-0" in str(text)
    event.remove(many.engine, "connect", note)
    searches = [sql for sql in seen if "ORDER BY" in sql and "FROM traces" in sql]
    searches = [sql for sql in searches if "spans" not in sql and "assessments" not in sql]
    with many.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {searches[-1]}").all()
    assert plan in str(rows[0][3])


@pytest.mark.parametrize("new_url", IN_SQL, indirect=True)
def test_what_no_trace_has_is_not_looked_for(store: Store, make_trace: Any) -> None:
    store.write([make_trace(trace_metadata={"a": "b"})])
    for text in ("metadata.nobody = 'x'", "tag.nobody LIKE 'x'", "status = 'x' AND name = 'y'"):
        with noted(store) as seen:
            assert TraceClient(store).search_traces(filter_string=text) == []
        assert not [sql for sql, _ in seen if "FROM traces" in sql], text
    with noted(store) as seen:
        assert len(TraceClient(store).search_traces(filter_string="status = 'OK'")) == 1
    assert [sql for sql, _ in seen if "FROM traces" in sql]


def test_values_are_found_by_how_they_start(store: Store, make_trace: Any) -> None:
    """The range of the index in which they stand ends where it must, for every last letter."""
    letters = ("", "\0", "a", "b", "[", "~", "é", "\ud7ff", "\ue000", "\uffff", "\U0001f600", "\U0010ffff")
    values = [f"{first}{second}" for first in letters for second in letters]
    store.write([make_trace(trace_metadata={"k": value}) for value in dict.fromkeys(values)])
    step = 7 if isinstance(store, ClickHouseStore) else 1  # it has no such index, and searches are slow
    for start in list(dict.fromkeys(values))[::step]:
        found = TraceClient(store).search_traces(
            filter_string=f"metadata.k LIKE {quote(start + '%')}", max_results=500
        )
        expected = {value for value in values if value.startswith(start)}
        assert {trace.info.trace_metadata["k"] for trace in found} == expected


def test_pages_by_session_and_by_rarity_are_whole(many: Store) -> None:
    client = TraceClient(many)
    for text in (
        "session_id IN ('s7', 's8')",
        "metadata.k = 'common' AND status = 'ERROR'",
        "metadata.app_version = '1' AND status = 'ERROR'",
        "metadata.tenant LIKE 't1%'",
        "metadata.tenant LIKE 't%' AND status = 'OK'",
        "status != 'OK'",
    ):
        whole = [trace.info.trace_id for trace in client.search_traces(filter_string=text, max_results=1500)]
        paged: list[str] = []
        token = None
        while True:
            page = client.search_traces(filter_string=text, max_results=90, page_token=token)
            paged += [trace.info.trace_id for trace in page]
            token = page.token
            if token is None:
                break
        assert paged == whole
        assert len(whole) >= 100
