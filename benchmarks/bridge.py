"""CPU time of MLflow in a request: the handler of its guide, alone and inside our bridge, in one process.

    python -m benchmarks.bridge [--rounds 20] [--requests 100]

The variants serve the same request in turn, round after round. Measured is the CPU time of the serving thread
(``time.thread_time_ns``) minus that of the bare app; reported is the median over the rounds. MLflow sends in
its own threads to a server on the loopback that accepts everything; it is flushed between the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import mlflow

from wherefrom import Settings, TraceMiddleware
from wherefrom.mlflow import MLflowBridge

from .overhead import BODY, START, App, bare, serve

EXPERIMENT = {"experiment_id": "1", "name": "bench", "lifecycle_stage": "active", "artifact_location": "/tmp"}


class Nowhere:
    """A sink that discards traces."""

    def write(self, traces: Any) -> None:
        pass

    def close(self) -> None:
        pass


class YesServer(BaseHTTPRequestHandler):
    """Accepts everything that MLflow's client sends."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        experiment = json.dumps({"experiment": EXPERIMENT}).encode()
        self._answer(b"3.17.2" if self.path == "/version" else experiment)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not self.path.endswith("/mlflow/traces"):
            self._answer(b"", "application/x-protobuf")
            return
        info = json.loads(body)["trace"]["trace_info"]
        info["tags"]["mlflow.trace.spansLocation"] = "TRACKING_STORE"
        self._answer(json.dumps({"trace": {"trace_info": info}}).encode())

    def _answer(self, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def serve_yes() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), YesServer)
    print(server.server_port, flush=True)
    server.serve_forever()


@mlflow.trace
async def handle_chat(headers: dict[str, str]) -> dict[str, int]:
    """The handler of MLflow's guide, without a framework around it."""
    mlflow.update_current_trace(
        client_request_id=headers.get("x-request-id"),
        session_id=headers.get("x-session-id"),
        user=headers.get("x-user-id"),
        metadata={
            "environment": os.getenv("APP_ENVIRONMENT", "development"),
            "app_version": os.getenv("APP_VERSION", "1.0.0"),
            "deployment_id": os.getenv("DEPLOYMENT_ID", "unknown"),
            "region": os.getenv("REGION", "local"),
        },
    )
    return {"answer": 42}


@mlflow.trace
async def say_nothing(headers: dict[str, str]) -> dict[str, int]:
    """The same handler under Wherefrom, which records by itself what it set."""
    return {"answer": 42}


def app_of(handler: Any) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await handler({name.decode(): value.decode("latin-1") for name, value in scope["headers"]})
        await send(START)
        await send(BODY)

    return app


async def measure(variants: dict[str, App], rounds: int, requests: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 2):
        for name, app in variants.items():
            gc.collect()
            microseconds = await serve(app, requests)
            mlflow.flush_trace_async_logging()
            if number >= 2:
                times[name].append(microseconds)
    return {name: statistics.median(values) for name, values in times.items()}


def report(measured: dict[str, float]) -> None:
    base = measured["bare app"]
    guide = measured["MLflow's guide"] - base
    print(f"{'in the request':44} {'us/request':>10} {'overhead':>9} {'x guide':>8}")
    for name, value in measured.items():
        print(f"{name:44} {value:10.1f} {value - base:9.1f} {(value - base) / guide:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_yes()
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bridge", "--serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        port = int(server.stdout.readline()) if server.stdout else 0
        mlflow.set_tracking_uri(f"http://127.0.0.1:{port}")
        mlflow.set_experiment(experiment_id="1")
        settings, sink = Settings(store="none"), Nowhere()
        bridges = [MLflowBridge()]
        variants: dict[str, App] = {
            "bare app": bare,
            "MLflow's guide": app_of(handle_chat),
            "wherefrom, no bridge": TraceMiddleware(bare, settings=settings, sink=sink),
            "bridge, nothing traced in the handler": TraceMiddleware(
                bare, settings=settings, sink=sink, bridges=bridges
            ),
            "bridge, the guide's handler as it stands": TraceMiddleware(
                app_of(handle_chat), settings=settings, sink=sink, bridges=bridges
            ),
            "bridge, only @mlflow.trace in the handler": TraceMiddleware(
                app_of(say_nothing), settings=settings, sink=sink, bridges=bridges
            ),
        }
        started = time.monotonic()
        report(asyncio.run(measure(variants, options.rounds, options.requests)))
        print(f"\n{options.rounds} rounds in {time.monotonic() - started:.0f} s")
    finally:
        server.terminate()
    sys.stdout.flush()
    os._exit(0)  # MLflow would wait for its server, which has been stopped


if __name__ == "__main__":
    main()
