"""A collector for tests: a real HTTP server that decodes OTLP with OpenTelemetry's own classes."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any

from google.protobuf.json_format import MessageToJson  # type: ignore[import-untyped]
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Reply:
    """What to answer. ``cut``: where it breaks off: in its ``status line``, its ``body``, or ``all``."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: str = ""
    delay: float = 0


@dataclass
class Request:
    """What came: ``message`` is decoded."""

    path: str
    headers: dict[str, str]
    message: ExportTraceServiceRequest
    size: int
    client: tuple[str, int]
    reply: Reply

    @property
    def spans(self) -> list[Span]:
        return [span for _, span in _spans(self.message)]


def decode(body: bytes) -> ExportTraceServiceRequest:
    """A request; a field that OTLP does not know is an error."""
    message = ExportTraceServiceRequest()
    message.ParseFromString(body)
    _check_known(message)
    return message


def _check_known(message: Any) -> None:
    assert len(UnknownFieldSet(message)) == 0, message
    for field_, value in message.ListFields():
        if field_.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                _check_known(each)


def value_of(value: AnyValue) -> Any:
    """The value that an ``AnyValue`` holds."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes_of(value.kvlist_value.values)
    return getattr(value, kind)


def attributes_of(pairs: Any) -> dict[str, Any]:
    """Attributes as a dict; a key that comes twice is an error."""
    found = {pair.key: value_of(pair.value) for pair in pairs}
    assert len(found) == len(pairs), sorted(pair.key for pair in pairs)
    return found


def partial_success(rejected: int, message: str, *, protobuf: bool = False) -> Reply:
    """A response that rejects some spans."""
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = rejected
    response.partial_success.error_message = message
    if protobuf:
        return Reply(200, response.SerializeToString(), {"content-type": "application/x-protobuf"})
    return Reply(200, MessageToJson(response).encode(), {"content-type": "application/json; charset=utf-8"})


class Receiver:
    """Responds with ``replies`` in order, then with the result of ``judge``, else with 200."""

    def __init__(self, ssl_context: SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.replies: list[Reply] = []
        self.judge: Callable[[ExportTraceServiceRequest, int], Reply] = lambda message, size: Reply()
        self.others: list[str] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.receiver = self
        scheme = "http"
        if ssl_context is not None:
            scheme = "https"
            self._server.socket = ssl_context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def accepted(self) -> list[Span]:
        """Every span of a request that was acknowledged."""
        return [span for _, span in self.accepted_with_resources]

    @property
    def accepted_with_resources(self) -> list[tuple[Resource, Span]]:
        """The same, each with its resource."""
        taken = [request for request in self.requests if _acknowledged(request.reply)]
        return [pair for request in taken for pair in _spans(request.message)]

    @property
    def clients(self) -> set[tuple[str, int]]:
        """The connections that requests came by."""
        return {request.client for request in self.requests}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    receiver: Receiver

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    disable_nagle_algorithm = True  # headers and body are two packets, the second 40 ms late
    server: _Server

    def do_POST(self) -> None:
        receiver = self.server.receiver
        raw = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = gzip.decompress(raw) if headers.get("content-encoding") == "gzip" else raw
        assert headers["content-type"] == "application/x-protobuf"
        message = decode(body)
        reply = receiver.replies.pop(0) if receiver.replies else receiver.judge(message, len(body))
        client = (str(self.client_address[0]), int(self.client_address[1]))
        receiver.requests.append(Request(self.path, headers, message, len(body), client, reply))
        time.sleep(reply.delay)
        self._answer(reply)

    def do_CONNECT(self) -> None:
        self.server.receiver.others.append(self.requestline)
        self.server.receiver.others.append(self.headers.get("proxy-authorization", ""))
        self.send_error(502)

    def _answer(self, reply: Reply) -> None:
        self.close_connection = bool(reply.cut) or reply.headers.get("connection") == "close"
        if reply.cut == "all":
            return
        if reply.cut == "status line":
            self.wfile.write(b"HTTP/1.1 200")
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(reply.body) + (100 if reply.cut == "body" else 0)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *args: Any) -> None:
        pass


def _acknowledged(reply: Reply) -> bool:
    return 200 <= reply.status < 300 and reply.cut in {"", "body"}


def _spans(message: ExportTraceServiceRequest) -> Iterator[tuple[Resource, Span]]:
    for resource_spans in message.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            assert scope_spans.scope.name == "wherefrom"
            for span in scope_spans.spans:
                yield resource_spans.resource, span
