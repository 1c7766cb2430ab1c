"""One deadline and one size limit for each response, whatever the server does."""

from __future__ import annotations

import gzip
import logging
import random
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from wherefrom.exceptions import StoreError, StoreUnavailableError
from wherefrom.exporters import OTLPExporter
from wherefrom.mlflow.exporter import MLflowExporter
from wherefrom.mlflow.reader import MLflowReader
from wherefrom.process import ledger

from .conftest import MakeExporter, MakeTrace
from .receiver import Receiver
from .rude import STATUS, RudeServer, rude

TIMEOUT = 0.6
LATEST = 2.5  # on a busy machine

Ask = Callable[[str, MakeTrace], None]


def by_otlp(url: str, make_trace: MakeTrace) -> None:
    exporter = OTLPExporter(url, timeout=TIMEOUT, environ={})
    try:
        exporter.write([make_trace()])
    finally:
        exporter.close()


def by_mlflow(url: str, make_trace: MakeTrace) -> None:
    exporter = MLflowExporter(url, timeout=TIMEOUT, environ={})
    try:
        exporter.write([make_trace()])
    finally:
        exporter.close()


def by_reader(url: str, make_trace: MakeTrace) -> None:
    reader = MLflowReader(url, timeout=TIMEOUT, environ={})
    try:
        reader.experiments()
    finally:
        reader.close()


@pytest.fixture(params=[by_otlp, by_mlflow, by_reader])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Everything that reads responses: it sends one request."""
    found: Ask = request.param
    return found


def dripping(data: bytes, first: bytes = b"") -> Callable[[RudeServer, socket.socket], None]:
    def answer(server: RudeServer, connection: socket.socket) -> None:
        connection.sendall(first)
        server.drip(data)(connection)

    return answer


def endless(data: bytes, first: bytes = b"") -> Callable[[RudeServer, socket.socket], None]:
    def answer(server: RudeServer, connection: socket.socket) -> None:
        connection.sendall(first)
        while not server.ended.is_set():
            connection.sendall(data)

    return answer


class TestDeadline:
    @pytest.mark.parametrize(
        ("data", "first"),
        [
            (b"H", b""),
            (b"x-more: 1\r\n", STATUS),
            (b"x", STATUS + b"x-long: "),
            (b"HTTP/1.1 100 Continue\r\n\r\n", b""),
        ],
        ids=["status line", "headers", "one header", "1xx"],
    )
    def test_a_response_that_drips_is_given_up(
        self, ask: Ask, make_trace: MakeTrace, data: bytes, first: bytes
    ) -> None:
        """Each byte comes long before a timeout for reads would end: the whole has one deadline."""
        with rude(dripping(data, first)) as server:
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="cannot be reached"):
                ask(server.url, make_trace)
            assert time.monotonic() - started < LATEST

    @pytest.mark.parametrize(
        "data",
        [b"content-length: 100000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n1;"],
        ids=["length", "chunk"],
    )
    def test_a_body_that_drips_is_given_up(self, make_trace: MakeTrace, data: bytes) -> None:
        """The status is known by then; if the body is needed, there is no response."""
        with rude(dripping(b"1", STATUS + data)) as server:
            started = time.monotonic()
            by_otlp(server.url, make_trace)
            assert time.monotonic() - started < LATEST
            for ask in (by_mlflow, by_reader):
                started = time.monotonic()
                with pytest.raises(StoreUnavailableError, match="breaks off"):
                    ask(server.url, make_trace)
                assert time.monotonic() - started < LATEST
            assert server.connections == 3

    def test_a_server_that_does_not_read_is_given_up(self, make_trace: MakeTrace) -> None:
        def answer(server: RudeServer, connection: socket.socket) -> None:
            while not server.ended.wait(0.05):
                connection.recv(1000)

        trace = make_trace()
        trace.data.spans[0].outputs = random.Random(1).randbytes(3_000_000).hex()
        with rude(answer, reads=False) as server:
            exporter = OTLPExporter(server.url, timeout=TIMEOUT, gzip=False, environ={})
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="cannot be reached"):
                exporter.write([trace])
            assert time.monotonic() - started < LATEST
            exporter.close()

    def test_tls_that_is_never_agreed_on_is_given_up(self, ask: Ask, make_trace: MakeTrace) -> None:
        with rude(dripping(b"\x16\x03\x03\x40\x00" + b"\0" * 16_000), reads=False) as server:
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="cannot be reached"):
                ask(server.url.replace("http:", "https:"), make_trace)
            assert time.monotonic() - started < LATEST

    def test_the_next_request_has_a_connection_and_a_deadline_of_its_own(self, make_trace: MakeTrace) -> None:
        def answer(server: RudeServer, connection: socket.socket) -> None:
            if server.connections == 1:
                server.drip(b"H")(connection)
            connection.sendall(STATUS + b"content-length: 2\r\n\r\n{}")

        with rude(answer) as server:
            exporter = OTLPExporter(server.url, timeout=TIMEOUT, environ={})
            with pytest.raises(StoreUnavailableError):
                exporter.write([make_trace()])
            for _ in range(3):
                exporter.write([make_trace()])
            assert server.connections == 2
            exporter.close()


class TestSize:
    @pytest.mark.parametrize(
        ("data", "first"),
        [
            (b"x" * 65536, b""),
            (b"x" * 65536, STATUS + b"x-long: "),
            (b"x-more: 1\r\n" * 5000, STATUS),
        ],
        ids=["status line", "one header", "headers"],
    )
    def test_headers_without_end_are_not_read_to_their_end(
        self, ask: Ask, make_trace: MakeTrace, data: bytes, first: bytes
    ) -> None:
        said = pytest.raises(StoreUnavailableError, match="cannot be reached")
        with rude(endless(data, first)) as server, at_most(4_000_000), said:
            ask(server.url, make_trace)

    @pytest.mark.parametrize(
        "data", [b"content-length: 900000000\r\n\r\n", b"connection: close\r\n\r\n"], ids=["length", "close"]
    )
    def test_a_message_without_end_is_not_read_to_its_end(self, make_trace: MakeTrace, data: bytes) -> None:
        with rude(endless(b"x" * 65536, STATUS + data)) as server, at_most(4_000_000):
            by_otlp(server.url, make_trace)

    def test_a_page_without_end_is_refused(self, make_trace: MakeTrace) -> None:
        with rude(endless(b" " * 65536, STATUS + b"connection: close\r\n\r\n")) as server:
            reader = MLflowReader(server.url, environ={})
            with pytest.raises(StoreError, match="answered more than 64,000,000 bytes"):
                reader.experiments()
            reader.close()

    def test_an_experiment_is_found_in_few_bytes(self, make_trace: MakeTrace) -> None:
        with rude(endless(b" " * 65536, STATUS + b"connection: close\r\n\r\n")) as server:
            exporter = MLflowExporter(server.url, environ={})
            with at_most(12_000_000), pytest.raises(StoreUnavailableError, match="more than 4,000,000 bytes"):
                exporter.write([make_trace()])
            exporter.close()

    def test_what_is_compressed_stays_so(self, ask: Ask, make_trace: MakeTrace) -> None:
        """No compression is requested, and a compressed body is not decompressed."""
        bomb = gzip.compress(b" " * 50_000_000)

        def answer(server: RudeServer, connection: socket.socket) -> None:
            head = STATUS + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
            connection.sendall(head + bomb)

        with rude(answer) as server, at_most(4_000_000):
            if ask is by_otlp:
                ask(server.url, make_trace)
            else:
                with pytest.raises(StoreError, match="where MLflow answers a JSON object"):
                    ask(server.url, make_trace)

    def test_a_page_that_breaks_off_is_asked_for_again(self, make_trace: MakeTrace) -> None:
        """A body that is needed is no answer when a part of it is missing."""
        body = b'{"traces": []}'

        def answer(server: RudeServer, connection: socket.socket) -> None:
            connection.sendall(STATUS + b"content-length: %d\r\n\r\n" % len(body))
            if server.connections > 2:
                connection.sendall(body)
                return
            connection.sendall(body[:5])
            connection.shutdown(socket.SHUT_RDWR)

        with rude(answer) as server:
            reader = MLflowReader(server.url, environ={})
            (page,) = reader.pages("chat", "1")
            assert page.listed == []
            assert server.connections == 3
            reader.close()


class TestOwnRequests:
    def test_they_are_no_spans_of_what_instruments_httpx(
        self, make_exporter: MakeExporter, receiver: Receiver, make_trace: MakeTrace, monkeypatch: Any
    ) -> None:
        """OpenTelemetry's instrumentation wraps ``HTTPTransport.handle_request``, others ``Client.send``."""

        def traced(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("our own request was traced")

        monkeypatch.setattr(httpx.HTTPTransport, "handle_request", traced)
        monkeypatch.setattr(httpx.Client, "send", traced)
        make_exporter().write([make_trace()])
        assert len(receiver.accepted) == 1
        assert "traceparent" not in receiver.requests[0].headers

    def test_they_are_not_in_the_app_s_log(
        self,
        make_exporter: MakeExporter,
        receiver: Receiver,
        make_trace: MakeTrace,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """httpx logs every request at INFO."""
        caplog.set_level(logging.INFO)
        make_exporter().write([make_trace()])
        assert len(receiver.accepted) == 1
        assert not caplog.records
        assert not ledger.read().errors


@pytest.mark.parametrize("target", ["otlp+http://h", "mlflow+http://h"])
def test_without_httpx_it_is_said_at_the_start(target: str) -> None:
    """One sentence names the extra."""
    code = (
        "import sys; sys.modules['httpcore'] = None; import wherefrom;"
        f"wherefrom.TraceMiddleware(None, settings=wherefrom.Settings(store='none', export='{target}'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "wherefrom.exceptions.MissingExtraError: export over HTTP needs an optional dependency:"
        " pip install 'wherefrom[httpx]'"
    )


class at_most:
    """Fails if Python's memory grew by more bytes meanwhile."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __enter__(self) -> None:
        tracemalloc.start()

    def __exit__(self, *error: object) -> None:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < self.most
