from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from wherefrom.client import TraceClient
from wherefrom.stores import open_store

from .conftest import make_trace, run

Write = Callable[..., None]


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


def test_traces_are_copied_counted_and_compared(write: Write, file: Path, tmp_path: Path) -> None:
    write(*(make_trace(number) for number in range(30)))
    target = f"sqlite:///{tmp_path}/copy.db"
    first = run("db", "copy", f"sqlite:///{file}", target)
    counted, source, copy = first.err.splitlines()
    assert (first.code, counted) == (0, "30 traces copied, 0 already there.")
    assert source.startswith("30 traces with the digest ")
    assert source.removesuffix(f" in sqlite:///{file}.") == copy.removesuffix(f" in {target}.")
    again = run("db", "copy", f"sqlite:///{file}", target)
    assert again.err.splitlines() == ["0 traces copied, 30 already there.", source, copy]


def test_a_difference_has_an_exit_code(write: Write, file: Path, tmp_path: Path) -> None:
    write(make_trace(1), make_trace(2, tags={"team": "a"}))
    with_tag = open_store(url := f"sqlite:///{tmp_path}/copy.db")
    with_tag.write([make_trace(2, tags={"team": "b"})])
    with_tag.close()
    result = run("db", "copy", f"sqlite:///{file}", url)
    assert result.code == 1
    assert "1 trace not the same in both:" in result.err
    assert f"tr-0002{'a' * 28}  the target has other values of: tags" in result.err


def test_a_copy_that_was_killed_goes_on(write: Write, file: Path, tmp_path: Path) -> None:
    """What it has written is there, and is neither written nor counted twice."""
    count = 4_000
    write(*(make_trace(number, trace_id=f"tr-{number:032x}", spans=[]) for number in range(count)))
    source, target = f"sqlite:///{file}", tmp_path / "copy.db"
    code = (
        "import sys; from wherefrom.analysis import tail; tail._BATCH = 20;"
        "from wherefrom.cli import main; sys.argv[0] = 'wherefrom'; main()"
    )
    command = [sys.executable, "-c", code, "db", "copy", source, f"sqlite:///{target}"]
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.DEVNULL)
    while not (some := stored(target)):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    some = stored(target)
    assert 0 < some < count
    result = run("db", "copy", source, f"sqlite:///{target}")
    assert result.err.splitlines()[0] == f"{count - some:,} traces copied, {some:,} already there."
    assert (result.code, stored(target)) == (0, count)


def stored(target: Path) -> int:
    if not target.exists():
        return 0
    store = open_store(f"sqlite:///{target}")
    found = len(TraceClient(store).search_traces(max_results=10_000, include_spans=False))
    store.close()
    return found


def test_an_error_of_a_copy_is_one_sentence(write: Write, file: Path, tmp_path: Path) -> None:
    """The same store twice, no source, no target, and what is no store."""
    write(make_trace())
    source, other = f"sqlite:///{file}", f"sqlite:///{tmp_path}/other.db"
    away = "postgresql://me:secret@127.0.0.1:1/traces"
    for origin, target, said in (
        (source, source, "was given twice"),
        (other, source, "other.db does not exist"),
        (source, away, "cannot be reached now"),
        (source, "traces.db", "did you mean sqlite:///traces.db?"),
    ):
        result = run("db", "copy", origin, target)
        assert (result.code, result.out, len(result.err.splitlines())) == (1, "", 1), result.err
        assert said in result.err
        assert "secret" not in result.err
    assert run("db", "copy", source).code == 2
