"""The state of a process: counters, complaints once a minute, hooks at a fork and at exit."""

from __future__ import annotations

import gc
import logging
import os
import re
import subprocess
import sys
import threading

import pytest

from wherefrom import Stats
from wherefrom.process import Ledger, Process, ledger, process


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_it_counts() -> None:
    """Everything that happened to traces, by reason, header or place."""
    book = Ledger()
    book.recorded += 3
    book.stored(2)
    book.dropped("queue_full")
    book.dropped("queue_full", 4)
    book.refused("x-user-id")
    book.failed("sink", ValueError("x"))
    assert book.read(queue_depth=7) == Stats(3, 2, {"queue_full": 5}, {"x-user-id": 1}, {"sink": 1}, 7)
    book.reset()
    assert book.read() == Stats()


def test_what_was_read_does_not_change() -> None:
    """Stats are of one moment."""
    book = Ledger()
    before = book.read()
    book.dropped("x")
    assert before.dropped == {}


def test_it_counts_from_any_thread() -> None:
    """No count is lost between threads."""
    book = Ledger()

    def work() -> None:
        for _ in range(2000):
            book.recorded += 1
            book.refused("x")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (book.read().recorded, book.read().refused_headers) == (8000, {"x": 8000})


def test_it_complains_once_a_minute_and_place(caplog: pytest.LogCaptureFixture) -> None:
    """A store that fails a thousand times a second is one line a minute."""
    clock = Clock()
    book = Ledger(clock)
    for _ in range(100):
        book.failed("store", OSError("full"))
    book.failed("hook", KeyError("k"))
    assert [record.getMessage() for record in caplog.records] == [
        f"{place} failed ({what}); the app goes on, for a minute more failures here are only counted"
        for place, what in [("store", "OSError: full"), ("hook", "KeyError: 'k'")]
    ]
    clock.now += 59.9
    book.failed("store", OSError("full"))
    clock.now += 0.2
    book.failed("store", OSError("full"))
    assert len(caplog.records) == 3
    assert book.read().errors == {"store": 102, "hook": 1}


def test_the_stack_is_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    """The traceback is logged when the logger is set to DEBUG, and not otherwise."""
    Ledger().failed("a", OSError("x"))
    with caplog.at_level(logging.DEBUG, logger="wherefrom"):
        Ledger().failed("a", OSError("x"))
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]


def test_an_error_that_cannot_be_shown_is_still_counted(caplog: pytest.LogCaptureFixture) -> None:
    """An exception whose ``__str__`` raises does not make the complaint fail."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError

    book = Ledger()
    book.failed("hook", Odd())
    assert book.read().errors == {"hook": 1}
    assert "Odd" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_starts_from_nothing() -> None:
    """What the parent counted, and whether it held the lock just then, is not the child's."""
    ledger.recorded += 5
    with ledger._lock:
        pid = os.fork()
        if pid == 0:
            ledger.recorded += 1
            os._exit(ledger.read().recorded)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert ledger.read().recorded == 5


def test_a_hook_lives_as_long_as_its_object() -> None:
    """A bound method is referenced weakly, and is forgotten with its object."""
    calls = []

    class Sink:
        def start_afresh(self) -> None:
            calls.append(self)

    found, sink = Process(), Sink()
    found.on_fork(before=sink.start_afresh)
    found._run("before")
    assert calls == [sink]
    calls.clear()
    del sink
    gc.collect()
    found._run("before")
    assert not calls
    assert not found._fork_hooks["before"]


def test_a_process_with_a_queue_and_an_exporter_ends_in_silence() -> None:
    """What is still referenced at the end of the interpreter prints no traceback when it goes."""
    code = (
        "from wherefrom.exporters import OTLPExporter; from wherefrom.sinks import BackgroundSink;"
        " queue = BackgroundSink(OTLPExporter('http://127.0.0.1:9', environ={})); queue.close(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


class Hooked:
    def __init__(self, notes: list[str], name: str) -> None:
        self.notes, self.name = notes, name

    def note(self) -> None:
        self.notes.append(self.name)


def test_each_process_has_an_id_of_its_own() -> None:
    """16 hex; two processes with one host and pid, as after a restart of a container, differ too."""
    first, second = Process(), Process()
    assert re.fullmatch("[0-9a-f]{16}", first.instance_id)
    assert first.instance_id != second.instance_id


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_is_another_instance() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, process.instance_id.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 100).decode() != process.instance_id
    os.close(read)
    os.close(write)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_hooks_run_around_a_fork() -> None:
    """Before it and after it in the parent, and in the child alone, in the order of their registration."""
    state = Process()
    notes: list[str] = []
    first, second = Hooked(notes, "first"), Hooked(notes, "second")
    for hooked in (first, second):
        state.on_fork(before=hooked.note, in_child=hooked.note)
    state.on_fork(in_parent=lambda: notes.append("parent"))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if notes == ["first", "second"] * 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert notes == ["first", "second", "parent"]


def test_a_hook_keeps_nothing_alive() -> None:
    """A store that is thrown away is not called at the next fork."""
    state = Process()
    notes: list[str] = []
    gone = Hooked(notes, "gone")
    state.on_fork(before=gone.note, in_parent=gone.note, in_child=gone.note)
    del gone
    assert state._fork_hooks == {"before": [], "parent": [], "child": []}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_has_a_lock_of_its_own() -> None:
    """Whoever held the parent's lock when it forked does not exist in the child."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with process.lock:
            held.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if process.lock.acquire(timeout=5) else 1)
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_exit_hooks_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, however often it was registered, and also after one that fails."""
    registered: list[object] = []
    monkeypatch.setattr("atexit.register", registered.append)
    state = Process()
    notes: list[str] = []
    hooks = [lambda: 1 / 0, lambda: notes.append("closed")]
    for hook in hooks * 2:
        state.on_exit(hook)
    assert registered == [state.end]
    state.end()
    assert notes == ["closed"]
    assert state.ledger.read().errors == {"exit": 1}


def test_a_bridge_replaces_one_of_its_class() -> None:
    """Making a bridge twice, as tests and reloads do, does not connect a tracer twice."""
    state = Process()
    first, second, other = Hooked([], "1"), Hooked([], "2"), object()
    for bridge in (first, other, second):
        state.add_bridge(bridge)
    assert state.bridges == (other, second)
