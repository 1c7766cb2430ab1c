"""The part of MLflow's server that the exporter uses, with failures that the real one rarely has."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ..exporters.receiver import Reply, decode

EXPERIMENTS = "/api/2.0/mlflow/experiments"
TRACES = "/api/3.0/mlflow/traces"
SPANS = "/v1/traces"


@dataclass
class Asked:
    """A request: ``spans`` of one to ``/v1/traces``, ``body`` of any other."""

    path: str
    headers: dict[str, str]
    query_lists: dict[str, list[str]]
    body: Any
    spans: list[Span]
    client: tuple[str, int]

    @property
    def query(self) -> dict[str, str]:
        """The first value of each parameter."""
        return {key: values[0] for key, values in self.query_lists.items()}


class StubServer:
    """Keeps experiments, spans and trace infos. ``judge`` may answer in its place."""

    def __init__(self, port: int = 0) -> None:
        self.experiments: dict[str, str] = {"Default": "0"}
        self.deleted: set[str] = set()
        self.spans: Counter[str] = Counter()
        self.infos: dict[str, dict[str, Any]] = {}
        self.asked: list[Asked] = []
        self.judge: Callable[[Asked], Reply | None] = lambda asked: None
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.stub = self
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def told(self, path: str) -> list[Asked]:
        """The requests to a path."""
        return [asked for asked in self.asked if asked.path == path]

    def answer(self, asked: Asked) -> Reply:
        with self.lock:
            self.asked.append(asked)
            if (reply := self.judge(asked)) is not None:
                return reply
            if asked.path == SPANS:
                return self._take_spans(asked)
            if asked.path == f"{TRACES}/batchGetInfos":
                ids = asked.body["trace_ids"]
                return as_json({"trace_infos": [self.infos[each] for each in ids if each in self.infos]})
            if asked.path == TRACES:
                info = asked.body["trace"]["trace_info"]
                info["trace_metadata"]["mlflow.trace.infoFinalized"] = "true"
                self.infos[info["trace_id"]] = info
                return as_json({"trace": {"trace_info": info}})
            return self._experiment(asked)

    def _take_spans(self, asked: Asked) -> Reply:
        if asked.headers["x-mlflow-experiment-id"] not in self.experiments.values():
            return failure(404, "RESOURCE_DOES_NOT_EXIST", "No Experiment with this id exists")
        self.spans.update(span.span_id.hex() for span in asked.spans)
        return Reply(200, b"", {"content-type": "application/x-protobuf"})

    def _experiment(self, asked: Asked) -> Reply:
        if asked.path == f"{EXPERIMENTS}/create":
            name = asked.body["name"]
            if name in self.experiments:
                return failure(400, "RESOURCE_ALREADY_EXISTS", "Experiment already exists")
            self.experiments[name] = str(len(self.experiments))
            return as_json({"experiment_id": self.experiments[name]})
        wanted = asked.query.get("experiment_name"), asked.query.get("experiment_id")
        for name, id_ in self.experiments.items():
            if name == wanted[0] or id_ == wanted[1]:
                stage = "deleted" if name in self.deleted else "active"
                experiment = {"name": name, "experiment_id": id_, "lifecycle_stage": stage}
                return as_json({"experiment": experiment})
        return failure(404, "RESOURCE_DOES_NOT_EXIST", "Could not find experiment")


def as_json(data: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(data).encode(), {"content-type": "application/json"})


def failure(status: int, code: str, message: str) -> Reply:
    """An error in MLflow's form."""
    return as_json({"error_code": code, "message": message}, status)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32
    stub: StubServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    disable_nagle_algorithm = True  # headers and body are two packets, the second 40 ms late
    server: _Server

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["content-length"])))

    def _answer(self, raw: bytes) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body, spans = None, []
        if parts.path.endswith(SPANS):
            spans = _spans(raw, headers)
        elif raw:
            body = json.loads(raw)
        query = parse_qs(parts.query)
        client = (str(self.client_address[0]), int(self.client_address[1]))
        reply = self.server.stub.answer(Asked(parts.path, headers, query, body, spans, client))
        time.sleep(reply.delay)
        if reply.cut:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *args: Any) -> None:
        pass


def _spans(raw: bytes, headers: dict[str, str]) -> list[Span]:
    body = gzip.decompress(raw) if headers.get("content-encoding") == "gzip" else raw
    message = decode(body)
    return [
        span for resource in message.resource_spans for scope in resource.scope_spans for span in scope.spans
    ]
