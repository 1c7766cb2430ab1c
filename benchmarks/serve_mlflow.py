"""The client of serve.py: MLflow's client, timing the responses of each server.

    python benchmarks/serve_mlflow.py ROUNDS URL GROUP URL GROUP...

GROUP is the process group of the server, to measure its CPU time (on Linux). Prints a JSON object with the ms
of each round for each query and server.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
mlflow: Any = import_module("mlflow")  # by name: the type checker's environment may lack it
logging.disable(logging.CRITICAL)

EXPERIMENT = "chat"
WARM_UP = 2
BY_VERSION = "metadata.app_version = '1.3.0'"
PAGE = 500  # the largest page of MLflow's server


class Reader:
    def __init__(self, url: str, group: int) -> None:
        self.group = group
        self.client = mlflow.MlflowClient(tracking_uri=url)
        self.places = [self.client.get_experiment_by_name(EXPERIMENT).experiment_id]
        self.newest = self.search()[0]

    def search(self, **arguments: Any) -> list[str]:
        found = self.client.search_traces(locations=self.places, **arguments)
        return [trace.info.trace_id for trace in found]

    def one(self) -> list[str]:
        return [self.client.get_trace(self.newest).info.trace_id]

    def every(self) -> list[str]:
        seen: list[str] = []
        token = None
        while True:
            page = self.client.search_traces(locations=self.places, max_results=PAGE, page_token=token)
            seen += [trace.info.trace_id for trace in page]
            token = page.token
            if not token:
                return seen

    def cpu(self) -> float:
        """Return the ms of CPU that the server's processes have used."""
        spent = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # the process has just ended
                fields = path.read_text().rpartition(")")[2].split()
                spent += (int(fields[11]) + int(fields[12])) if int(fields[2]) == self.group else 0
        return spent * 1000 / os.sysconf("SC_CLK_TCK")


QUESTIONS: dict[str, Callable[[Reader], list[str]]] = {
    "newest 100": Reader.search,
    "100 of one version": lambda reader: reader.search(filter_string=BY_VERSION),
    "100 of one version, infos alone": lambda reader: reader.search(
        filter_string=BY_VERSION, include_spans=False
    ),
    "one trace": Reader.one,
    "all of them": Reader.every,
}


def main() -> None:
    rounds, *places = sys.argv[1:]
    readers = [Reader(url, int(group)) for url, group in zip(places[::2], places[1::2], strict=True)]
    times: dict[str, list[dict[str, list[float]]]]
    times = {name: [{"wall": [], "cpu": []} for _ in readers] for name in QUESTIONS}
    for number in range(int(rounds) + WARM_UP):
        for name, question in QUESTIONS.items():
            answers = []
            for kept, reader in zip(times[name], readers, strict=True):
                spent, started = reader.cpu(), time.perf_counter()
                answers.append(question(reader))
                wall = (time.perf_counter() - started) * 1000
                if number >= WARM_UP:
                    kept["wall"].append(wall)
                    kept["cpu"].append(reader.cpu() - spent)
            if any(sorted(answer) != sorted(answers[0]) for answer in answers):
                sys.exit(f"not the same answer: {name}")
    print(json.dumps(times))


if __name__ == "__main__":
    main()
