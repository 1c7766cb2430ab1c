"""Exports to files and standard output."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.sql import execute
from wherefrom import keys
from wherefrom._csv import MOST_KEYS
from wherefrom.analysis import tail
from wherefrom.model import Trace, TraceState
from wherefrom.stores import open_store

from .conftest import HOSTILE, is_harmless, make_span, make_trace, on_terminal, read_rest, read_until, run

Write = Callable[..., None]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "traces"


def test_json_lines_in_the_order_in_which_they_were_stored(write: Write) -> None:
    traces = [make_trace(number) for number in (3, 1, 2)]
    write(*traces)
    result = run("export")
    assert [Trace.from_dict(json.loads(line)) for line in result.lines] == traces
    assert (result.code, result.err) == (0, "")
    assert run("export", "--to", "jsonl").out == result.out


def test_the_filter_and_the_experiment_choose(write: Write) -> None:
    write(
        make_trace(1, state=TraceState.ERROR, experiment="shop"),
        make_trace(2, experiment="shop"),
        make_trace(3, state=TraceState.ERROR),
    )
    found = [
        json.loads(line)["info"]["client_request_id"] for line in run("export", "status = 'ERROR'").lines
    ]
    assert found == ["req-1", "req-3"]
    assert len(run("export", "status = 'ERROR'", "--experiment", "shop").lines) == 1
    assert run("export", "--experiment", "bank").out == ""


@pytest.mark.parametrize("filter_string", [None, "client_request_id LIKE '%7'", "span.name = 'GET /'"])
def test_stretches_and_batches_leave_nothing_out(
    write: Write, file: Path, monkeypatch: pytest.MonkeyPatch, filter_string: str | None
) -> None:
    monkeypatch.setattr("wherefrom.stores.sqlite.snapshot.STRETCH", 17)
    monkeypatch.setattr(tail, "_BATCH", 5)
    numbers = [number for number in range(200) if not 40 <= number < 95]
    write(*(make_trace(number, name="GET /") for number in range(200)))
    store = open_store(f"sqlite:///{file}")
    execute(store, "DELETE FROM traces WHERE id BETWEEN 41 AND 95")
    steps = list(tail.in_steps(store, filter_string))
    found = [trace.info.client_request_id for step in steps for trace in step.traces]
    wanted = [f"req-{number}" for number in numbers]
    if filter_string == "client_request_id LIKE '%7'":
        wanted = [name for name in wanted if name.endswith("7")]
    assert found == wanted
    assert all(len(step.traces) <= 5 for step in steps)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == 1


def test_traces_that_come_meanwhile_are_left_for_the_next_export(write: Write, file: Path) -> None:
    write(*(make_trace(number) for number in range(3)))
    store = open_store(f"sqlite:///{file}")
    steps = tail.in_steps(store)
    first = next(steps)
    store.write([make_trace(9)])
    assert len(first.traces) + sum(len(step.traces) for step in steps) == 3


def test_csv_has_a_column_for_each_known_key(write: Write) -> None:
    write(
        make_trace(1, request_preview='a,\n"b"', metadata={"tenant": "acme"}),
        make_trace(2, execution_duration=None, spans=[]),
    )
    result = run("export", "--to", "csv")
    assert result.lines[0].split(",") == [
        "trace_id", "experiment", "timestamp", "execution_time_ms", "status", "http_status", "name",
        "client_request_id", "session_id", "user", "request_preview", "response_preview",
        "metadata.app_version", "metadata.environment", "metadata.tenant", "other",
    ]  # fmt: skip
    first, second = rows_of(result.out)
    assert first["timestamp"] == "2026-09-21T14:13:21.000+00:00"
    assert first["execution_time_ms"] == "120.0"
    assert first["request_preview"] == 'a,\n"b"'
    assert (first["user"], first["session_id"], first["metadata.tenant"]) == ("alice", "s-1", "acme")
    assert (second["metadata.tenant"], second["execution_time_ms"], second["other"]) == ("", "", "")


def test_pairs_beyond_the_columns_are_kept_together(write: Write) -> None:
    many = {f"k{number:03}": str(number) for number in range(MOST_KEYS + 5)}
    trace = make_trace(1, metadata=many)
    trace.info.tags["team"] = "search"
    write(trace)
    row = rows_of(run("export", "--to", "csv").out)[0]
    assert len(row) == 12 + MOST_KEYS + 1
    assert json.loads(row["other"]) == {
        **{f"metadata.k{number}": str(number) for number in range(198, 205)},
        "tag.team": "search",
    }


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("-12.5e3", "-12.5e3"),
        ("+4915112345", "+4915112345"),
        ("a=1", "a=1"),
        ("'quoted", "'quoted"),
    ],
)
def test_csv_holds_no_formulas(write: Write, value: str, cell: str) -> None:
    write(make_trace(1, metadata={keys.USER: value, "=key": value}))
    row = rows_of(run("export", "--to", "csv").out)[0]
    assert row["user"] == cell
    assert row["metadata.=key"] == cell
    assert json.loads(run("export").out)["info"]["trace_metadata"][keys.USER] == value


def test_a_time_beyond_the_calendar_stays_a_number(write: Write) -> None:
    write(make_trace(1, request_time=10**17, spans=[]))
    assert rows_of(run("export", "--to", "csv").out)[0]["timestamp"] == str(10**17)


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "csv"])
def test_a_file_tells_its_format_by_its_ending(write: Write, output: Path, ending: str) -> None:
    write(make_trace(1), make_trace(2))
    path = output.with_suffix(f".{ending.upper()}")
    result = run("export", "-o", str(path))
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith(f"2 traces in {path} (")
    assert path.read_text() == run("export", "--to", "csv" if ending == "csv" else "jsonl").out
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_link_to_a_file_stays_a_link(write: Write, output: Path) -> None:
    write(make_trace(1))
    output.write_text("old")
    link = output.with_name("link.csv")
    link.symlink_to(output)
    assert run("export", "-o", str(link)).code == 0
    assert link.is_symlink()
    assert output.read_text().startswith("trace_id,")


def test_a_pipe_is_written_to_itself(write: Write, output: Path) -> None:
    write(make_trace(1))
    os.mkfifo(output)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(output.read_text()))
    reader.start()
    # The size that is told of a pipe is nothing.
    assert "1 trace in" in run("export", "--to", "jsonl", "-o", str(output)).err
    reader.join(10)
    assert len(read[0].splitlines()) == 1
    assert output.is_fifo()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--to", "parquet"), 2, "parquet needs a file: name one with --output"),
        (("-o", "traces.xlsx"), 2, "no format is known for the extension"),
        (("--to", "xml"), 2, "'xml'"),
        (("--to", "csv", "-o", "."), 1, "is a directory"),
        (("-o", "no/where.csv"), 1, "No such file or directory"),
        (("stat = 'OK'", "-o", "traces.csv"), 2, "did you mean status?"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    write: Write, monkeypatch: pytest.MonkeyPatch, output: Path, args: tuple[str, ...], code: int, said: str
) -> None:
    write(make_trace(1))
    monkeypatch.chdir(output.parent)
    result = run("export", *args)
    assert (result.code, result.out) == (code, "")
    assert said in " ".join(result.err.split())
    assert list(output.parent.iterdir()) == []


def test_the_store_is_never_written_over(write: Write, file: Path) -> None:
    write(make_trace(1))
    before = file.read_bytes()
    result = run("export", "--to", "csv", "-o", str(file.parent / "." / file.name))
    assert result.code == 1
    assert "is the store itself" in result.err
    assert file.read_bytes() == before


def test_an_empty_store_exports_nothing(write: Write, output: Path) -> None:
    write()
    assert run("export").out == ""
    assert rows_of(run("export", "--to", "csv").out) == []
    assert run("export", "-o", f"{output}.jsonl").err.startswith("0 traces in")


def test_a_pipe_gets_utf_8_whatever_the_terminal_speaks(write: Write) -> None:
    write(make_trace(1, name="café …"))
    for args in (("export",), ("export", "--to", "csv")):
        done = subprocess.run(
            [sys.executable, "-m", "wherefrom", *args],
            capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
            timeout=60,
        )
        assert done.returncode == 0
        assert "café …" in done.stdout.decode("utf-8")


@pytest.mark.parametrize("to", ["csv", "jsonl"])
def test_on_a_terminal_no_cell_steers_it(write: Write, to: str) -> None:
    write(make_trace(1, name=HOSTILE))
    process, terminal = on_terminal("export", "--to", to)
    shown = read_rest(terminal).decode().replace("\r\n", "\n")
    assert process.wait(30) == 0
    assert is_harmless(shown)


def test_a_bar_shows_how_far_it_is_and_ctrl_c_leaves_nothing_behind(write: Write, output: Path) -> None:
    write(*(make_trace(number) for number in range(9000)))
    process, terminal = on_terminal("export", "--to", "csv", "-o", str(output), columns=120)
    shown = read_until(terminal, b"Exporting") + read_until(terminal, b"traces")
    assert b"%" in shown
    process.send_signal(signal.SIGINT)
    rest = read_rest(terminal)
    assert process.wait(30) == 130
    assert b"Traceback" not in rest
    assert list(output.parent.iterdir()) == []


def test_parquet_needs_an_extra(write: Write, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(make_trace(1))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("export", "-o", f"{output}.parquet")
    assert result.code == 1
    assert result.err == (
        "wherefrom: export to Parquet needs an optional dependency: pip install 'wherefrom[parquet]'\n"
    )
    assert list(output.parent.iterdir()) == []


def test_parquet_holds_what_was_stored(write: Write, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    from wherefrom.cli import formats

    monkeypatch.setattr(formats, "_ROWS_IN_GROUP", 500)
    write(*(make_trace(number, name="=1+1", metadata={"tenant": "acme"}) for number in range(1100)))
    write(make_trace(2000, execution_duration=None, spans=[]))
    assert run("export", "-o", f"{output}.pq").code == 0
    table = parquet.read_table(f"{output}.pq")
    assert parquet.ParquetFile(f"{output}.pq").num_row_groups > 1
    rows = table.to_pylist()
    assert len(rows) == 1101
    assert rows[5]["name"] == "=1+1"
    assert rows[5]["metadata.tenant"] == "acme"
    assert rows[5]["timestamp"].timestamp() == 1_790_000_005
    assert rows[5]["execution_time_ms"] == 120.0
    assert json.loads(rows[5]["spans"])[0]["name"] == "=1+1"
    assert (rows[-1]["execution_time_ms"], rows[-1]["metadata.tenant"], rows[-1]["spans"]) == (
        None,
        None,
        "[]",
    )


def test_the_http_status_is_a_number(write: Write, output: Path) -> None:
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    root = make_span("root", None, 0, 120, attributes={"http.response.status_code": 503})
    write(make_trace(1, spans=[root]), make_trace(2, spans=[]))
    assert [row["http_status"] for row in rows_of(run("export", "--to", "csv").out)] == ["503", ""]
    assert run("export", "-o", f"{output}.pq").code == 0
    assert parquet.read_table(f"{output}.pq")["http_status"].to_pylist() == [503, None]


def test_an_empty_parquet_file_can_be_read(write: Write, output: Path) -> None:
    parquet: Any = pytest.importorskip("pyarrow.parquet")
    write()
    assert run("export", "-o", f"{output}.parquet").code == 0
    assert parquet.read_table(f"{output}.parquet").num_rows == 0
