"""Files with recorded data are readable only by their owner, whatever the umask."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wherefrom import Trace
from wherefrom.cli.app import app
from wherefrom.client import TraceClient
from wherefrom.sinks.lines import JsonLinesSink
from wherefrom.stores.sqlite.store import SQLiteStore

MakeTrace = Callable[..., Trace]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX modes")


@pytest.fixture(params=[0o000, 0o022], ids=["umask 0", "umask 022"], autouse=True)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.db"


def modes(folder: Path) -> dict[str, int]:
    return {found.name: stat.S_IMODE(found.stat().st_mode) for found in folder.iterdir()}


def test_the_store_and_what_lies_beside_it(path: Path, make_trace: MakeTrace) -> None:
    """While it is written and read, and after."""
    with closing(SQLiteStore(path)) as store:
        store.write([make_trace()])
        assert len(TraceClient(store).search_traces()) == 1
        names = ("traces.db", "traces.db-wal", "traces.db-shm")
        assert modes(path.parent) == dict.fromkeys(names, 0o600)
    assert modes(path.parent) == {"traces.db": 0o600}


def test_a_store_that_is_first_read(path: Path, make_trace: MakeTrace) -> None:
    """Reading makes nothing, and writing makes it as ever."""
    with closing(SQLiteStore(path)) as store:
        assert TraceClient(store).search_traces() == []
        assert modes(path.parent) == {}
        store.write([make_trace()])
        assert set(modes(path.parent).values()) == {0o600}


def test_a_store_that_is_made_again(path: Path, make_trace: MakeTrace) -> None:
    """Its file was removed while it was open."""
    with closing(SQLiteStore(path)) as store:
        store.write([make_trace()])
        assert len(TraceClient(store).search_traces()) == 1
        for found in path.parent.iterdir():
            found.unlink()
        assert TraceClient(store).search_traces() == []
        store.write([make_trace()])
        assert set(modes(path.parent).values()) == {0o600}


def test_the_rollback_journal(path: Path, make_trace: MakeTrace) -> None:
    """A file that was taken out of WAL mode has one while it is written."""
    with closing(SQLiteStore(path)) as store:
        store.write([make_trace()])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("DELETE FROM traces")
        assert modes(path.parent) == {"traces.db": 0o600, "traces.db-journal": 0o600}


def test_a_store_behind_a_link(path: Path, tmp_path: Path, make_trace: MakeTrace) -> None:
    """The file that the link names is made."""
    (tmp_path / "data").mkdir()
    path.symlink_to(tmp_path / "data" / "real.db")
    with closing(SQLiteStore(path)) as store:
        store.write([make_trace()])
        assert set(modes(tmp_path / "data").values()) == {0o600}


def test_json_lines(tmp_path: Path, make_trace: MakeTrace) -> None:
    JsonLinesSink(tmp_path / "traces.jsonl").write([make_trace()])
    assert modes(tmp_path) == {"traces.jsonl": 0o600}


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--output", "out.jsonl"),
        ("export", "--output", "out.csv"),
        ("export", "--output", "out.parquet"),
        ("compare", "--plot", "out.svg"),
        ("compare", "--plot", "out.png"),
        ("versions", "--plot", "out.svg"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kept", [None, 0o640, 0o604])
def test_what_commands_write(
    path: Path,
    make_trace: MakeTrace,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    kept: int | None,
) -> None:
    """A file that is replaced passes its mode on; the one that is written first was its owner's alone."""
    with closing(SQLiteStore(path)) as store:
        store.write([make_trace(trace_metadata={"app_version": version}) for version in "1122"])
    monkeypatch.chdir(path.parent)
    out = Path(arguments[-1])
    if kept is not None:
        out.touch()
        out.chmod(kept)
    result = CliRunner().invoke(app, [*arguments, "--store", f"sqlite:///{path}"])
    assert result.exit_code == 0, result.stderr
    assert out.stat().st_size > 0
    assert modes(path.parent) == {"traces.db": 0o600, str(out): kept or 0o600}


def test_a_part_of_an_export_is_its_owner_s_too(
    path: Path, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is written, also where the file that it replaces is everybody's."""
    from wherefrom.cli.formats import replacing

    out = path.parent / "out.csv"
    out.touch()
    out.chmod(0o666)
    with closing(SQLiteStore(path)) as store, replacing(out, store) as part:
        part.write_text("secret")
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        assert out.read_text() == ""
    assert (stat.S_IMODE(out.stat().st_mode), out.read_text()) == (0o666, "secret")


def test_files_that_are_there_keep_their_mode(path: Path, tmp_path: Path, make_trace: MakeTrace) -> None:
    """A group with access to a store or a file of lines keeps it."""
    lines = tmp_path / "traces.jsonl"
    for file in (path, lines):
        file.touch()
        file.chmod(0o640)
    JsonLinesSink(lines).write([make_trace()])
    with closing(SQLiteStore(path)) as store:
        store.write([make_trace()])
        assert set(modes(tmp_path).values()) == {0o640}
