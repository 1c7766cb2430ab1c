"""What MLflow's client may ask for and does not get here: one sentence that says where it is to be had."""

from __future__ import annotations

import re
from typing import Final

from .errors import NO_ENDPOINT, NOT_IMPLEMENTED, RestError

_API: Final = re.compile(r"/(?:ajax-)?api/[0-9.]+/mlflow/|/(?=v1/)")
_SHOWN: Final = 100

# Method and path after the prefix, the first that matches.
_SENTENCES: Final = (
    (
        r"POST v1/traces|POST traces|PATCH traces/[^/]+",
        "traces are not taken here, only read: Wherefrom's middleware records them",
    ),
    (
        r"POST traces/delete-traces",
        "traces are not deleted here: `wherefrom prune` and wherefrom.TraceClient.delete_traces do that",
    ),
    (
        r"POST experiments/(?!search).+",
        "experiments are not made or changed here: the first trace under WHEREFROM_EXPERIMENT makes one",
    ),
    (r"\S+ traces/.+/assessments(/.*)?", "assessments are not kept in this store: they live in MLflow"),
    (
        r"GET traces(/[^/]+/info)?",
        "MLflow 2's way of reading traces is not answered: this takes a client of MLflow 3",
    ),
)
_ANY: Final = "Wherefrom answers for traces, their tags and experiments, and keeps nothing else of MLflow's"


def refusal(method: str, path: str) -> RestError:
    """The answer to a call that is none of those that are answered."""
    asked = f"{method} {path if len(path) <= _SHOWN else path[:_SHOWN] + '...'}"
    if (prefix := _API.match(path)) is None:
        return RestError(NO_ENDPOINT, f"there is nothing at {asked}: this is for MLflow's client")
    call = f"{method} {path[prefix.end() :]}"
    sentence = next((text for pattern, text in _SENTENCES if re.fullmatch(pattern, call, re.DOTALL)), _ANY)
    return RestError(NOT_IMPLEMENTED, f"{asked} is not supported: {sentence}")
