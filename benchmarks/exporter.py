"""The cost of sending a trace by OTLP: Wherefrom's exporter and OpenTelemetry's, in one process.

    python benchmarks/exporter.py [--rounds 40] [--traces 500]

Each variant encodes and sends the same traces, recorded by the middleware, in batches of ``--traces``, in
turn, round after round, so that noise affects all alike. Reported is the median CPU time of the sending
thread (``time.thread_time_ns``) for each trace. The receiver is another process, and garbage is collected
between the measurements.

Wherefrom's exporter starts from its traces, and so does "OpenTelemetry, protobuf", for which ``ReadableSpan``
objects are made first. "... spans ready made" leaves that out, and also the computation of session, user and
request id, which Wherefrom's figures include.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from wherefrom import Settings, Trace, TraceMiddleware, start_span
from wherefrom.exporters import OTLPExporter
from wherefrom.exporters.otlp import Delivered
from wherefrom.keys import SESSION, SPAN_INPUTS, SPAN_OUTPUTS, USER

TARGET = 4
SOURCE = {"service.name": "chat", "service.version": "1.4.2", "deployment.environment.name": "production"}
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
BODY = {"type": "http.response.body", "body": b'{"answer": 42}'}


class Route:
    path = "/chat/{thread}"


class Keep:
    def __init__(self) -> None:
        self.traces: list[Trace] = []

    def write(self, traces: Any) -> None:
        self.traces.extend(traces)


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    scope["route"] = Route
    await send(START)
    await send(BODY)


async def chat(scope: Any, receive: Any, send: Any) -> None:
    thread = scope["path"]
    with start_span(
        "retrieve", span_type="RETRIEVER", attributes={"db.system.name": "postgresql", "top_k": 5}
    ):
        pass
    model = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "claude-opus",
        "gen_ai.usage.input_tokens": 812,
        "gen_ai.usage.output_tokens": 97,
    }
    with start_span("chat claude-opus", span_type="CHAT_MODEL", attributes=model) as span:
        span.set_inputs({"messages": [{"role": "user", "content": f"What of {thread}?"}]})
        span.set_outputs({"role": "assistant", "content": "It depends on what you mean by it."})
    with start_span("store answer", span_type="TOOL", attributes={"db.system.name": "postgresql", "rows": 1}):
        pass
    await plain(scope, receive, send)


def record(app: Any, count: int) -> list[Trace]:
    keep = Keep()
    middleware = TraceMiddleware(app, settings=Settings(), sink=keep)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        pass

    async def serve() -> None:
        for number in range(count):
            headers = [
                (b"host", b"api.example.com"),
                (b"user-agent", b"python-httpx/0.28.1"),
                (b"x-request-id", f"request-{number:08}".encode()),
                (b"x-session-id", f"session-{number % 50}".encode()),
                (b"x-user-id", f"user-{number % 20}".encode()),
            ]
            scope = {
                "type": "http",
                "method": "POST",
                "path": f"/chat/{number}",
                "headers": headers,
                "http_version": "1.1",
                "client": ("10.0.0.7", 51234),
                "server": ("127.0.0.1", 8000),
            }
            await middleware(scope, receive, send)

    asyncio.run(serve())
    return keep.traces


def as_sdk_spans(traces: list[Trace]) -> list[ReadableSpan]:
    resource, scope = Resource(SOURCE), InstrumentationScope("wherefrom", "0.1.0")
    spans = []
    for trace in traces:
        for span in trace.data.spans:
            attributes = dict(span.attributes)
            if span.inputs is not None:
                attributes[SPAN_INPUTS] = span.inputs
                attributes[SPAN_OUTPUTS] = span.outputs
            if span is trace.root:
                attributes["session.id"] = trace.info.trace_metadata[SESSION]
                attributes["user.id"] = trace.info.trace_metadata[USER]
                attributes["wherefrom.request_id"] = trace.info.client_request_id
            else:
                attributes["mlflow.spanType"] = str(span.span_type)
            trace_id = int(span.trace_id[3:], 16)
            parent = SpanContext(trace_id, int(span.parent_id, 16), False) if span.parent_id else None
            spans.append(
                ReadableSpan(
                    span.name,
                    SpanContext(trace_id, int(span.span_id, 16), False, TraceFlags(1)),
                    parent,
                    resource,
                    BoundedAttributes(attributes=attributes),
                    kind=SpanKind.SERVER if span.parent_id is None else SpanKind.INTERNAL,
                    instrumentation_scope=scope,
                    status=Status(StatusCode.OK),
                    start_time=span.start_time_ns,
                    end_time=span.end_time_ns,
                )
            )
    return spans


def receive_for_ever(ready: Any) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ready.send(server.server_port)
    server.serve_forever()


def encode_with(exporter: OTLPExporter, traces: list[Trace]) -> int:
    exporter._delivered = Delivered()
    groups: dict[Any, list[Any]] = {}
    for _, resource, encoded, _ in exporter._encode(traces):
        groups.setdefault(resource, []).append(encoded)
    return sum(len(part) for part in exporter._encoder.request(groups.items()))


def write_with(exporter: OTLPExporter, traces: list[Trace]) -> None:
    exporter._delivered = Delivered()
    exporter.write(traces)


def variants(url: str, traces: list[Trace]) -> dict[str, Callable[[], Any]]:
    spans = as_sdk_spans(traces)
    ours, ours_plain = OTLPExporter(url), OTLPExporter(url, gzip=False)
    theirs = OTLPSpanExporter(endpoint=url + "/v1/traces")
    return {
        "encode: OpenTelemetry, protobuf": lambda: encode_spans(as_sdk_spans(traces)).SerializeToString(),
        "encode: ... spans ready made": lambda: encode_spans(spans).SerializeToString(),
        "encode: Wherefrom, protobuf": lambda: encode_with(ours, traces),
        "export: OpenTelemetry, protobuf": lambda: theirs.export(as_sdk_spans(traces)),
        "export: ... spans ready made": lambda: theirs.export(spans),
        "export: Wherefrom, protobuf": lambda: write_with(ours_plain, traces),
        "export: Wherefrom, protobuf and gzip": lambda: write_with(ours, traces),
    }


def measure(url: str, traces: list[Trace], rounds: int) -> dict[str, float]:
    runs = variants(url, traces)
    figures: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.thread_time_ns()
            run()
            figures[name].append((time.thread_time_ns() - started) / len(traces) / 1000)
            gc.collect(1)
    gc.enable()
    return {name: statistics.median(values) for name, values in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--traces", type=int, default=500)
    arguments = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    receiver = multiprocessing.get_context("spawn").Process(
        target=receive_for_ever, args=(theirs,), daemon=True
    )
    receiver.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    for title, app in (("a request, one span", plain), ("a chat request, four spans", chat)):
        traces = record(app, arguments.traces)
        size = encode_with(OTLPExporter(url), traces) / len(traces)
        print(f"\n{title} ({size:,.0f} bytes of protobuf a trace)")
        figures = measure(url, traces, arguments.rounds)
        for kind in ("encode", "export"):
            base = figures[f"{kind}: OpenTelemetry, protobuf"]
            for name, figure in figures.items():
                if name.startswith(kind):
                    print(f"  {name:36} {figure:7.2f} µs a trace   {base / figure:5.1f} times cheaper")
        ratio = figures["encode: OpenTelemetry, protobuf"] / figures["encode: Wherefrom, protobuf"]
        print(f"  encoding is {ratio:.1f} times cheaper; at least {TARGET} is wanted")
    receiver.terminate()


if __name__ == "__main__":
    main()
