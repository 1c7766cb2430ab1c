from __future__ import annotations

from .conftest import run


def test_the_tables_of_clickhouse_are_printed_without_a_server() -> None:
    done = run("db", "schema", "--store", "clickhouse://me:secret@nowhere.invalid/traces?cluster=main")
    assert done.code == 0
    assert done.out.startswith("CREATE DATABASE IF NOT EXISTS `traces` ON CLUSTER 'main';\n")
    assert "ReplicatedReplacingMergeTree" in done.out
    assert "secret" not in done.out


def test_another_store_makes_its_tables_itself() -> None:
    done = run("db", "schema", "--store", "sqlite:///traces.db")
    assert done.code == 1
    assert "makes its tables itself" in done.err
