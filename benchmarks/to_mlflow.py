"""The cost of a request's trace in an MLflow server: Wherefrom and MLflow's own production guide.

    python -m benchmarks.to_mlflow [--rounds 10] [--requests 50] [--burst 0] [--mlflow-python PATH]

One real ``mlflow server`` receives the traces of two processes in turn, round after round. One runs the
guide's handler with MLflow's SDK (guide_mlflow.py), in the order of decorators that records anything; the
other runs the same handler under Wherefrom with ``export=mlflow+http://…``, and with ``@wherefrom.trace``, so
that inputs and outputs are recorded there too. Both are FastAPI apps called without a network; the cost of
the same app without tracing is subtracted. "in the request" is the CPU time of the serving thread; "until it
is there" is that of the whole process until the server has all traces of the round. Reported are the medians.

"exporter off" is Wherefrom without an exporter: the difference is what an exporter costs the request.

``--burst 3000``: send that many requests as fast as possible, and count how many traces arrive at the server.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.mlflow.server import MISSING, MLflowServer, clean_environment, mlflow_python, running_server

HERE = Path(__file__).parent
TARGET = 10
ENVIRON = {
    "APP_ENVIRONMENT": "production",
    "APP_VERSION": "1.4.2",
    "DEPLOYMENT_ID": "deploy-7",
    "REGION": "eu-central-1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Worker:
    """A process that serves the requested number of requests, and prints their cost."""

    def __init__(self, python: str, script: str, url: str, experiment: str) -> None:
        self.experiment = experiment
        self._process = subprocess.Popen(
            [python, str(HERE / script), url, experiment],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment() | ENVIRON,
        )

    def serve(self, count: int) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the worker for {self.experiment} has ended")
        found: dict[str, float] = json.loads(answer)
        return found

    def close(self) -> None:
        self._process.communicate()


def measure(workers: dict[str, Worker], rounds: int, count: int) -> dict[str, dict[str, float]]:
    """Return the medians of each worker's figures, in µs for each request."""
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for name, worker in workers.items():
        worker.serve(20)
        print(f"{name} is warm", file=sys.stderr)
    for number in range(rounds):
        for name, worker in workers.items():
            figures[name].append(worker.serve(count))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]}
        for name, found in figures.items()
    }


def report(figures: dict[str, dict[str, float]]) -> None:
    guide, ours = figures["MLflow's guide"], figures["Wherefrom"]
    print(f"\n{'CPU of the client, us a trace':32}{'in the request':>16}{'until it is there':>20}")
    for name, found in figures.items():
        print(f"{name:32}{found['request']:16,.1f}{found['total']:20,.1f}")
    print(f"{'Wherefrom, exporter off':32}{ours['off']:16,.1f}")
    request, total = guide["request"] / ours["request"], guide["total"] / ours["total"]
    print(f"{'times less':32}{request:16,.1f}{total:20,.1f}")
    print(f"\nat least {TARGET} times less is wanted: {'met' if min(request, total) >= TARGET else 'MISSED'}")


def burst(workers: dict[str, Worker], server: MLflowServer, count: int) -> None:
    print(f"\n{f'a burst of {count:,} requests':32}{'sent in':>10}{'all there after':>18}{'lost':>10}")
    for name, worker in workers.items():
        before = len(server.traces(server.experiment(worker.experiment)))
        found = worker.serve(count)
        there = len(server.traces(server.experiment(worker.experiment))) - before
        lost = f"{(count - there) / count:.1%}"
        print(f"{name:32}{found['sent_s']:8.1f} s{found['there_s']:16.1f} s{lost:>10}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--burst", type=int, default=0)
    parser.add_argument("--mlflow-python", default=mlflow_python())
    arguments = parser.parse_args()
    if arguments.mlflow_python is None:
        print(MISSING)
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(arguments.mlflow_python, Path(folder)) as server,
    ):
        for experiment in ("guide", "wherefrom"):
            server.new_experiment(experiment)
        workers = {
            "MLflow's guide": Worker(arguments.mlflow_python, "guide_mlflow.py", server.url, "guide"),
            "Wherefrom": Worker(sys.executable, "guide_wherefrom.py", server.url, "wherefrom"),
        }
        report(measure(workers, arguments.rounds, arguments.requests))
        if arguments.burst:
            burst(workers, server, arguments.burst)
        for worker in workers.values():
            worker.close()


if __name__ == "__main__":
    main()
