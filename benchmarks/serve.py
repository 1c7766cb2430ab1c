"""Response times for MLflow's client: ``wherefrom serve`` and MLflow's own server, with the same traces.

    python -m benchmarks.serve --mlflow-python PATH [--traces 2000] [--rounds 20]

Both servers have a SQLite store, and one process with MLflow's client sends requests to them in turn, so that
noise affects both alike. The responses are checked to be the same traces. CPU time is that of the server's
processes, on Linux.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.mlflow.server import clean_environment, running_server

from benchmarks.search import fill, make_traffic, ms, write_lines

HERE = Path(__file__).parent


Times = dict[str, list[dict[str, list[float]]]]
"""For each question and server: ms that passed, and ms of CPU that the server took, in each round."""


@contextmanager
def wherefrom_server(store: Path) -> Iterator[tuple[str, int]]:
    """Start the server; return its address and its process group."""
    command = [sys.executable, "-m", "wherefrom", "serve", "--port", "0", "--store", f"sqlite:///{store}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    try:
        yield process.stderr.readline().split("'")[1], process.pid
    finally:
        process.terminate()
        process.communicate()


def ask(python: str, servers: list[tuple[str, int]], rounds: int) -> Times:
    places = [str(part) for server in servers for part in server]
    command = [python, str(HERE / "serve_mlflow.py"), str(rounds), *places]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: Times = json.loads(done.stdout)
    return found


def report(times: Times) -> None:
    columns = [
        "wherefrom serve: p50",
        "p95",
        "mlflow server: p50",
        "p95",
        "ratio",
        "CPU",
        "MLflow's",
        "ratio",
    ]
    print(f"| ms | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for question, (ours, theirs) in times.items():
        wall = [ms(at(server["wall"])) for server in (ours, theirs) for at in (statistics.median, p95)]
        faster = statistics.median(theirs["wall"]) / statistics.median(ours["wall"])
        spent = [statistics.fmean(server["cpu"]) for server in (ours, theirs)]
        cells = [*wall, f"{faster:.1f}", *map(ms, spent), f"{spent[1] / spent[0]:.1f}" if spent[0] else ""]
        print(f"| {question} | {' | '.join(cells)} |")


def p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--mlflow-python", required=True)
    options: Any = parser.parse_args()
    python = options.mlflow_python
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(f"sqlite:///{folder}/wherefrom.db", make_traffic(options.traces))
        lines = write_lines(make_traffic(options.traces), folder / "traces.jsonl")
        filling = [python, str(HERE / "search_mlflow.py"), str(folder / "mlflow.db"), str(lines)]
        subprocess.run(filling, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=folder, check=True)
        with wherefrom_server(folder / "wherefrom.db") as ours, running_server(python, folder) as theirs:
            report(ask(python, [ours, (theirs.url, theirs.process.pid)], options.rounds))


if __name__ == "__main__":
    main()
