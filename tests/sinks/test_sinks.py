"""Every sink keeps one contract; and what each of them writes."""

from __future__ import annotations

import io
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wherefrom
from wherefrom import MemorySink, Span, Trace, TraceState
from wherefrom.exceptions import SettingsError, StoreUnavailableError
from wherefrom.model import TraceData
from wherefrom.sinks import BackgroundSink, ConsoleSink, FanOut, JsonLinesSink, Sink, open_exporter
from wherefrom.stores import open_store

MakeTrace = Callable[..., Trace]

KINDS = ["memory", "fan-out", "console", "lines", "sqlite", "queue"]


@pytest.fixture(params=KINDS)
def any_sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sink]:
    """Each sink in turn."""
    makers: dict[str, Callable[[], Any]] = {
        "memory": MemorySink,
        "fan-out": lambda: FanOut(MemorySink(), MemorySink()),
        "console": lambda: ConsoleSink(io.StringIO()),
        "lines": lambda: JsonLinesSink(tmp_path / "t.jsonl"),
        "sqlite": lambda: open_store(f"sqlite:///{tmp_path / 't.db'}"),
        "queue": lambda: BackgroundSink(MemorySink(), flush_interval_ms=1),
    }
    made = makers[request.param]()
    yield made
    if hasattr(made, "close"):
        made.close()


class TestContract:
    def test_it_takes_traces(self, any_sink: Sink, make_trace: MakeTrace) -> None:
        """One, many or none at all."""
        any_sink.write([])
        any_sink.write([make_trace()])
        any_sink.write(tuple(make_trace() for _ in range(10)))

    def test_it_takes_what_others_put_there(self, any_sink: Sink, make_trace: MakeTrace) -> None:
        """A trace that is not finished, without a name, with odd text in every place."""
        odd = "\x00\x1b[31m\n\u2028é😀"
        trace = make_trace(odd, client_request_id=odd, trace_metadata={odd: odd, "mlflow.trace.user": odd})
        trace.data.spans[0].attributes[odd] = [odd]
        running = Trace(wherefrom.TraceInfo("tr-" + "a" * 32))
        any_sink.write([trace, running])

    def test_it_takes_a_trace_twice(self, any_sink: Sink, make_trace: MakeTrace) -> None:
        """Late spans come under the same id."""
        trace = make_trace()
        any_sink.write([trace])
        late = Span(trace.info.trace_id, "b" * 16, trace.data.spans[0].span_id, "late")
        any_sink.write([Trace(trace.info, TraceData([late]))])

    def test_it_leaves_the_trace_alone(self, any_sink: Sink, make_trace: MakeTrace) -> None:
        """Other sinks get the same object: nobody changes it."""
        trace = make_trace(trace_metadata={"a": "b"}, tags={"mlflow.traceName": "x", "t": "u"})
        before = trace.to_json()
        any_sink.write([trace])
        assert trace.to_json() == before

    def test_it_takes_them_from_any_thread(self, any_sink: Sink, make_trace: MakeTrace) -> None:
        """Several threads at once."""
        errors: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(20):
                    any_sink.write([make_trace()])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []


class TestMemory:
    def test_late_spans_join_their_trace(self, sink: MemorySink, make_trace: MakeTrace) -> None:
        """What comes under a known id adds the spans that were not there yet."""
        first, other = make_trace(), make_trace()
        late = Span(first.info.trace_id, "b" * 16, None, "late")
        sink.write([first, other])
        sink.write([Trace(first.info, TraceData([late, first.data.spans[0]]))])
        assert sink.traces == [first, other]
        assert [span.name for span in sink.traces[0].data.spans] == ["GET /", "late"]


class TestFanOut:
    def test_one_that_fails_does_not_cost_the_others(self, sink: MemorySink, make_trace: MakeTrace) -> None:
        """Every sink gets every trace; what one raises is counted under its name."""

        class Broken:
            def write(self, _traces: Any) -> None:
                raise RuntimeError("no")

        last = MemorySink()
        traces = [make_trace(), make_trace()]
        FanOut(sink, Broken(), last).write(traces)
        assert sink.traces == last.traces == traces
        assert wherefrom.stats().errors == {"Broken": 1}
        assert wherefrom.stats().dropped == {"sink_failed": 2}


class TestLines:
    def test_each_trace_is_a_line_of_mlflow_s_json(self, tmp_path: Path, make_trace: MakeTrace) -> None:
        """The file is appended to, one line a trace, and every line is read back as it was."""
        path = tmp_path / "t.jsonl"
        traces = [make_trace("a\nb"), make_trace("c\u2028d")]
        JsonLinesSink(path).write(traces)
        JsonLinesSink(path).write([make_trace()])
        lines = path.read_bytes().split(b"\n")
        assert len(lines) == 4
        assert lines[-1] == b""
        assert [Trace.from_json(line) for line in lines[:2]] == traces

    def test_the_path_is_that_of_its_making(self, tmp_path: Path, make_trace: MakeTrace) -> None:
        """A later ``chdir`` does not move the file."""
        before = Path.cwd()
        os.chdir(tmp_path)
        try:
            sink = open_exporter("jsonl:///t.jsonl")
        finally:
            os.chdir(before)
        sink.write([make_trace()])
        assert (tmp_path / "t.jsonl").exists()

    def test_a_folder_that_is_not_there_may_come(self, tmp_path: Path, make_trace: MakeTrace) -> None:
        """The error is one that says: try again."""
        sink = JsonLinesSink(tmp_path / "no" / "t.jsonl")
        with pytest.raises(StoreUnavailableError, match="there is no folder"):
            sink.check("default")
        with pytest.raises(StoreUnavailableError, match=r"t\.jsonl"):
            sink.write([make_trace()])
        (tmp_path / "no").mkdir()
        sink.write([make_trace()])

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_disk_that_fills_leaves_no_torn_line(self, tmp_path: Path, make_trace: MakeTrace) -> None:
        """When only a part fits, that part is taken back, and the batch is tried again as a whole."""
        path = tmp_path / "t.jsonl"
        sink = JsonLinesSink(path)
        sink.write([make_trace("first")])
        size = path.stat().st_size
        pid = os.fork()
        if pid == 0:  # the limit holds for a whole process
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 700, resource.RLIM_INFINITY))
            code = 1
            try:
                sink.write([make_trace("second"), make_trace("third")])
            except StoreUnavailableError:
                code = 2 if path.stat().st_size == size else 3
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                sink.write([make_trace("second"), make_trace("third")])
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
        names = [Trace.from_json(line).info.name for line in path.read_bytes().splitlines()]
        assert names == ["first", "second", "third"]

    def test_what_somebody_put_on_a_span_is_no_trouble(self, tmp_path: Path, make_trace: MakeTrace) -> None:
        """Values that JSON cannot hold are written as their ``repr``."""
        trace = make_trace()
        trace.data.spans[0].attributes["o"] = object()
        trace.data.spans[0].inputs = {1: {2}}
        JsonLinesSink(tmp_path / "t.jsonl").write([trace])
        read = Trace.from_json((tmp_path / "t.jsonl").read_text())
        assert "object" in read.data.spans[0].attributes["o"]
        assert read.data.spans[0].inputs == {"1": [2]}


class TestConsole:
    def test_a_line_says_what_one_asks_first(self, make_trace: MakeTrace) -> None:
        """Time, state, duration, name, who, which version, and the id to look further."""
        out = io.StringIO()
        metadata = {"mlflow.trace.session": "s", "mlflow.trace.user": "u", "app_version": "1.2"}
        trace = make_trace(
            "GET /a", client_request_id="r", trace_metadata=metadata, state=TraceState.ERROR, trace_id="tr-1"
        )
        ConsoleSink(out).write([trace, make_trace("\x1b[31m\n", client_request_id="\x1b", trace_id="tr-2")])
        assert out.getvalue() == (
            "22:13:20 ERROR      5 ms  GET /a  request='r' session='s' user='u' version='1.2' tr-1\n"
            "22:13:20 OK         5 ms  \\x1b[31m\\n  request='\\x1b' tr-2\n"
        )

    def test_it_is_standard_error_s(self, make_trace: MakeTrace, capsys: pytest.CaptureFixture[str]) -> None:
        """``console:`` does not disturb what a program prints."""
        open_exporter("console:").write([make_trace()])
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("target", ["", "jsonl:", "jsonl:///", "kafka://x", "console"])
def test_an_unknown_exporter_is_named(target: str) -> None:
    """The error says what can be written there."""
    with pytest.raises(SettingsError, match=r"it takes jsonl:///file or console:"):
        open_exporter(target)
