"""A store where SQLite lacks something: its log, its locks, write access, or the file itself."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import wherefrom
from wherefrom import Trace, TraceClient
from wherefrom.exceptions import StoreError, StoreUnavailableError, TraceNotFoundError
from wherefrom.stores import open_store
from wherefrom.stores.opening import examine
from wherefrom.stores.sqlite import filesystem
from wherefrom.stores.sqlite.filesystem import FileSystem, file_system
from wherefrom.stores.sqlite.store import SQLiteStore

MakeTrace = Callable[..., Trace]
NOBODY = 65534
is_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root of Linux can mount and change the user"
)

# Holds the locks of the log's shared memory, as the server of a network file system that mixes them up does.
HOLDER = """
import fcntl, sys
memory = open(sys.argv[1] + "-shm", "w+b")
fcntl.lockf(memory, fcntl.LOCK_EX, 9, 120)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def no_locks(tmp_path: Path) -> Iterator[Path]:
    """The path of a store whose log has no locks: SQLite reports "locking protocol"."""
    path = tmp_path / "wherefrom.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield path
        holder.stdin.close()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Mounts a file system on a folder, and again with other options."""
    mounted: list[Path] = []

    def do(folder: Path, options: str = "rw") -> None:
        if folder in mounted:
            subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
        else:
            folder.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
            mounted.append(folder)

    yield do
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def names(store: SQLiteStore | str) -> list[str]:
    with TraceClient(store) as client:
        return sorted(trace.info.name or "" for trace in client.search_traces())


def journal(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class TestWithoutLog:
    def test_a_new_store(
        self, no_locks: Path, make_trace: MakeTrace, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Without locks for the log traces are stored with a rollback journal, and that is said once."""
        with closing(SQLiteStore(no_locks)) as store, closing(SQLiteStore(no_locks)) as other:
            store.write([make_trace("a")])
            other.write([make_trace("b")])
            store.write([make_trace("c")])
            assert names(store) == ["a", "b", "c"]
        assert journal(no_locks) == "delete"
        (sentence,) = said(caplog)
        place = file_system(no_locks)
        assert f"WAL cannot be used at {no_locks} ({place}): locking protocol. Traces are" in sentence

    def test_a_store_that_had_a_log(self, tmp_path: Path, make_trace: MakeTrace) -> None:
        """What is in the log of a file that comes from elsewhere is not lost when it gets a journal."""
        path = tmp_path / "there" / "wherefrom.db"
        with closing(SQLiteStore(tmp_path / "wherefrom.db")) as store:
            store.write([make_trace("in the log")])
            shutil.copytree(tmp_path, path.parent, ignore=shutil.ignore_patterns("there"))
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            with closing(SQLiteStore(path)) as store:
                assert store.missing() is None
                assert names(store) == ["in the log"]
                store.write([make_trace("new")])
                assert names(store) == ["in the log", "new"]
            holder.communicate(b"")
        assert journal(path) == "delete"

    def test_no_shared_memory(
        self, tmp_path: Path, make_trace: MakeTrace, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The same where the file beside it, which holds the shared memory, cannot be had."""
        path = tmp_path / "wherefrom.db"
        (tmp_path / "wherefrom.db-shm").mkdir()
        with closing(SQLiteStore(path)) as store:
            store.write([make_trace("a")])
            assert names(store) == ["a"]
        assert len(said(caplog)) == 1
        assert journal(path) == "delete"

    def test_another_holds_the_file(self, tmp_path: Path, make_trace: MakeTrace) -> None:
        """While somebody else has the file locked its journal is not changed: the queue tries again."""
        no_locks = tmp_path / "wherefrom.db"
        (tmp_path / "wherefrom.db-shm").mkdir()
        with closing(sqlite3.connect(no_locks, isolation_level=None)) as other:
            other.execute("CREATE TABLE IF NOT EXISTS theirs (id)")
            other.execute("BEGIN EXCLUSIVE")
            with closing(SQLiteStore(no_locks)) as store, pytest.raises(StoreUnavailableError):
                store.write([make_trace("a")])
            other.execute("ROLLBACK")
        with closing(SQLiteStore(no_locks)) as store:
            store.write([make_trace("a")])
            assert names(store) == ["a"]

    @is_root
    def test_hosts_share_the_file_system(
        self,
        tmp_path: Path,
        mount: Callable[..., None],
        make_trace: MakeTrace,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """On one that several hosts may share a store begins with a journal, which is right on each."""
        mount(tmp_path / "net")
        monkeypatch.setattr(filesystem, "_SHARED", frozenset({"tmpfs"}))
        path = tmp_path / "net" / "wherefrom.db"
        for name in ("a", "b"):
            with closing(SQLiteStore(path)) as store:
                store.write([make_trace(name)])
        assert journal(path) == "delete"
        assert names(f"sqlite:///{path}") == ["a", "b"]
        (sentence,) = said(caplog)
        assert f"(tmpfs, mounted at {tmp_path}/net): several hosts may share it" in sentence
        health = examine(f"sqlite:///{path}")
        assert health.problems == []
        assert [warning for warning in health.warnings if "journal mode" in warning and "tmpfs" in warning]


class TestFileSystem:
    @is_root
    def test_the_closest_mount_counts(self, tmp_path: Path, mount: Callable[..., None]) -> None:
        """Also of a file that is not there yet, below folders that are not, and with a blank in its name."""
        mount(tmp_path / "a b")
        found = FileSystem("tmpfs", f"{tmp_path}/a b")
        assert file_system(tmp_path / "a b" / "x" / "y.db") == found
        assert file_system(tmp_path / "a bc") != found
        (tmp_path / "link").symlink_to(tmp_path / "a b")
        assert file_system(tmp_path / "link" / "y.db") == found

    @pytest.mark.parametrize(
        ("kind", "shared"),
        [
            ("nfs4", True),
            ("fuse.sshfs", True),
            ("9p", True),
            ("cifs", True),
            ("ext4", False),
            ("fuseblk", False),
        ],
    )
    def test_which_are_shared(self, tmp_path: Path, kind: str, *, shared: bool) -> None:
        """File systems of the network and of FUSE; those of a disk are not."""
        table = tmp_path / "mountinfo"
        table.write_text(
            "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
            f"40 22 0:38 / {tmp_path} rw shared:7 master:2 - {kind} host:/export rw,vers=4.2\n"
        )
        found = file_system(tmp_path / "x.db", table)
        assert found == FileSystem(kind, str(tmp_path))
        assert found is not None
        assert found.is_shared is shared

    def test_no_such_table(self, tmp_path: Path) -> None:
        """Where the platform has no such table, nothing is said of it."""
        assert file_system(tmp_path, tmp_path / "none") is None


class TestReadOnly:
    @is_root
    @pytest.mark.parametrize("log", ["none", "there", "there with its memory"])
    def test_a_mount(
        self, tmp_path: Path, mount: Callable[..., None], make_trace: MakeTrace, log: str
    ) -> None:
        """A store on a read-only mount is read, with what is in its log if it has one."""
        folder = tmp_path / "ro"
        mount(folder)
        with closing(SQLiteStore(folder / "made.db")) as store:
            store.write([make_trace("a"), make_trace("b")])
            for file in folder.glob("made.db*"):
                shutil.copy(file, folder / file.name.replace("made", "wherefrom"))
        path = folder / "wherefrom.db"
        if log == "none":
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("SELECT * FROM traces")
        elif log == "there":
            Path(f"{path}-shm").unlink()
        assert Path(f"{path}-wal").exists() == (log != "none")
        mount(folder, "ro")
        assert names(f"sqlite:///{path}") == ["a", "b"]
        health = examine(f"sqlite:///{path}")
        assert (health.traces, health.writable) == (2, False)
        assert health.problems == [f"{path} cannot be written: this user cannot write to {path}"]
        with closing(SQLiteStore(path)) as store:
            with pytest.raises(StoreUnavailableError, match="read-only"):
                store.write([make_trace()])
            with pytest.raises(StoreUnavailableError, match="read-only"):
                store.prune(2**60)
            assert names(store) == ["a", "b"]

    @is_root
    def test_it_can_be_written_later(
        self, tmp_path: Path, mount: Callable[..., None], make_trace: MakeTrace
    ) -> None:
        """A reader without locks sees what comes when the mount is made writable, and the store writes."""
        folder = tmp_path / "ro"
        mount(folder)
        with closing(SQLiteStore(folder / "wherefrom.db")) as store:
            store.write([make_trace("a")])
        mount(folder, "ro")
        with closing(SQLiteStore(folder / "wherefrom.db")) as store:
            assert names(store) == ["a"]
            mount(folder, "rw")
            store.write([make_trace("b")])
            assert names(store) == ["a", "b"]

    @is_root
    @pytest.mark.parametrize(
        "mode", [(0o444, 0o777), (0o666, 0o555), (0o444, 0o555)], ids=["file", "folder", "both"]
    )
    def test_as_another_user(self, make_trace: MakeTrace, mode: tuple[int, int]) -> None:
        """A user who may not write the file, or not its folder, reads it; the doctor says so to that user."""
        with TemporaryDirectory() as name:
            folder = Path(name)
            path = folder / "wherefrom.db"
            with closing(SQLiteStore(path)) as store:
                store.write([make_trace("a")])
            path.chmod(mode[0])
            folder.chmod(mode[1])
            found = as_nobody(path)
        blocked = path if mode[0] == 0o444 else folder
        problem = f"{path} cannot be written: this user cannot write to {blocked}"
        assert found == {"names": ["a"], "problems": [problem], "writable": False}

    @is_root
    def test_a_folder_that_cannot_be_written(self) -> None:
        """A store that is not there, and that this user cannot make, is two problems."""
        with TemporaryDirectory() as name:
            Path(name).chmod(0o555)
            path = Path(name) / "new" / "wherefrom.db"
            found = as_nobody(path)
        assert found["names"] == []
        assert found["writable"] is False
        assert found["problems"][-1] == f"{path} cannot be created: this user cannot write to {name}"


def as_nobody(path: Path) -> Any:
    """What a user without rights finds in a store, and what the doctor tells that user."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            health = examine(f"sqlite:///{path}")
            facts = {
                "names": names(f"sqlite:///{path}"),
                "problems": health.problems,
                "writable": health.writable,
            }
            os.write(theirs, repr(facts).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(pid, 0)
    return eval(text)


class TestNothingThere:
    @pytest.mark.parametrize(
        "read",
        [
            lambda: wherefrom.search_traces(),
            lambda: TraceClient().list_sources(),
            lambda: TraceClient().search_experiments(),
            lambda: TraceClient().list_processes(),
            lambda: TraceClient().delete_traces("default", max_timestamp_millis=2**40),
            lambda: wherefrom.stores.open_store("sqlite:///wherefrom.db").prune(2**40),
        ],
        ids=["search", "sources", "experiments", "processes", "delete", "prune"],
    )
    def test_reading_makes_no_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[], Any]
    ) -> None:
        """In the wrong folder there is nothing to find, and nothing is left behind."""
        monkeypatch.chdir(tmp_path)
        assert not read()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "edit",
        [
            lambda client: client.get_trace("tr-" + "0" * 32),
            lambda client: client.set_trace_tag("tr-" + "0" * 32, "a", "b"),
            lambda client: client.delete_trace_tag("tr-" + "0" * 32, "a"),
        ],
        ids=["get", "set tag", "delete tag"],
    )
    def test_there_is_no_trace(self, tmp_path: Path, edit: Callable[[TraceClient], Any]) -> None:
        """What is asked of one trace fails as in a store that has others, and makes no file."""
        with TraceClient(f"sqlite:///{tmp_path}/wherefrom.db") as client, pytest.raises(TraceNotFoundError):
            edit(client)
        assert list(tmp_path.iterdir()) == []

    def test_it_is_said_once(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Who reads where no store is hears of it, once."""
        for _ in range(3):
            assert names(f"sqlite:///{tmp_path}/wherefrom.db") == []
        (sentence,) = said(caplog)
        assert sentence.startswith(f"there is no store at {tmp_path}/wherefrom.db;")

    def test_it_is_read_when_it_is_there(self, tmp_path: Path, make_trace: MakeTrace) -> None:
        """A reader that came first reads what another process writes later."""
        with closing(SQLiteStore(tmp_path / "wherefrom.db")) as reader:
            assert names(reader) == []
            with reader.snapshot() as snapshot:
                assert snapshot.state().traces == 0
                cursor = snapshot.cursor()
            with closing(SQLiteStore(tmp_path / "wherefrom.db")) as writer:
                writer.write([make_trace("a")])
                assert names(reader) == ["a"]
                with reader.snapshot() as snapshot:
                    assert len(snapshot.changes(cursor, wherefrom.stores.Selection(), 10).keys) == 1

    def test_another_program_s_file_is_left_alone(self, tmp_path: Path) -> None:
        """Reading adds no tables to a file that is not ours."""
        path = tmp_path / "theirs.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE invoices (id)")
        before = path.read_bytes()
        with pytest.raises(StoreError, match="not a store of Wherefrom"):
            names(f"sqlite:///{path}")
        assert path.read_bytes() == before


class TestHome:
    @pytest.mark.parametrize("url", ["sqlite:///~/traces.db", "sqlite:///~/deep/er/traces.db"])
    def test_a_tilde_is_the_home_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_trace: MakeTrace, url: str
    ) -> None:
        """A store there is in the home directory, for who writes and for who reads."""
        home = tmp_path / "home"
        home.mkdir()
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.chdir(tmp_path)
        with closing(open_store(url)) as store:
            store.write([make_trace("a")])
        assert names(url) == ["a"]
        assert (home / url.removeprefix("sqlite:///~/")).exists()
        assert [file.name for file in tmp_path.iterdir()] == ["home"]

    def test_only_at_the_beginning(self, tmp_path: Path, make_trace: MakeTrace) -> None:
        """Elsewhere it is a character of a name."""
        with closing(open_store(f"sqlite:///{tmp_path}/~/a~.db")) as store:
            store.write([make_trace("a")])
        assert (tmp_path / "~" / "a~.db").exists()

    def test_nobody_s_home(self) -> None:
        """A user that does not exist has none."""
        with pytest.raises(StoreError, match="no-such-user"):
            open_store("sqlite:///~no-such-user/traces.db")
