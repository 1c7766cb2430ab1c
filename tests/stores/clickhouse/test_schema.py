"""The DDL is what is written down here, and the engine reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherefrom.exceptions import StoreError
from wherefrom.stores import open_store
from wherefrom.stores.clickhouse.store import ClickHouseStore
from wherefrom.stores.opening import statements

WRITTEN = Path(__file__).parents[2] / "data" / "clickhouse"
URLS = {
    "server.sql": "clickhouse://host/traces",
    "cluster.sql": "clickhouse://user:secret@host/traces?cluster=main",
}


@pytest.mark.parametrize("file", URLS)
def test_the_statements_are_those_that_are_written_down(file: str) -> None:
    """Print them anew with ``wherefrom db schema --store URL``."""
    text = ";\n\n".join(statements(URLS[file])) + ";\n"
    assert text == (WRITTEN / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("file", URLS)
def test_the_engine_reads_each_statement(store: ClickHouseStore, file: str) -> None:
    for statement in statements(URLS[file]):
        ((formatted,),) = store._connection.rows(
            "SELECT formatQuerySingleLine({sql:String})", {"sql": statement}, with_database=False
        )
        assert formatted.startswith("CREATE ")


def test_every_row_of_a_trace_is_on_one_shard() -> None:
    """So a join of sharded tables may stay on each shard."""
    sharded = [text for text in statements(URLS["cluster.sql"]) if "Distributed" in text]
    assert len(sharded) == 10
    of_traces = [
        text
        for text in sharded
        if any(f".{name} ON" in text for name in ("traces", "spans", "tags", "assessments"))
    ]
    assert all(text.endswith("cityHash64(trace_id))") for text in of_traces)
    assert len(of_traces) == 4


def test_days_are_kept_by_the_tables_themselves() -> None:
    store = open_store("clickhouse://host/traces", retention_days=30)
    assert isinstance(store, ClickHouseStore)
    aged = [text for text in store.ddl() if "PARTITION BY" in text]
    assert len(aged) == 5
    assert all("+ toIntervalSecond(2592000)" in text for text in aged)


@pytest.mark.parametrize("name", ["a'b", "a`b", "", "a;b", "a b", "x" * 65])
def test_a_name_that_is_no_name_is_refused(name: str) -> None:
    """DDL takes names as text."""
    with pytest.raises(StoreError, match="is not the name of a"):
        open_store(f"clickhouse://host/d?cluster={name}")
    if name:
        with pytest.raises(StoreError, match="is not the name of a"):
            open_store(f"clickhouse://host/{name}")


def test_other_stores_make_their_tables_themselves(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="makes its tables itself"):
        statements(f"sqlite:///{tmp_path}/traces.db")
