"""What goes wrong, in MLflow's form: an error code that its client knows, one sentence, and a status.

Its client asks again for about four minutes where it gets 408, 429, 500, 502, 503 or 504. So those are for
what may be better by then.
"""

from __future__ import annotations

import re
from typing import Any, Final

from starlette.exceptions import HTTPException

from ..._capture.values import cut
from ...exceptions import (
    FilterError,
    InvalidTraceError,
    QueryTimeoutError,
    StoreUnavailableError,
    TraceNotFoundError,
    WherefromError,
)
from ...web.queries import BusyError

INVALID: Final = "INVALID_PARAMETER_VALUE"
UNAUTHENTICATED: Final = "UNAUTHENTICATED"
FORBIDDEN: Final = "PERMISSION_DENIED"
NOT_FOUND: Final = "RESOURCE_DOES_NOT_EXIST"
NO_ENDPOINT: Final = "ENDPOINT_NOT_FOUND"
NOT_IMPLEMENTED: Final = "NOT_IMPLEMENTED"
UNAVAILABLE: Final = "TEMPORARILY_UNAVAILABLE"
TOO_LONG: Final = "DEADLINE_EXCEEDED"
BROKEN: Final = "INTERNAL_ERROR"

_STATUSES: Final = {
    INVALID: 400,
    UNAUTHENTICATED: 401,
    FORBIDDEN: 403,
    NOT_FOUND: 404,
    NO_ENDPOINT: 404,
    NOT_IMPLEMENTED: 501,
    UNAVAILABLE: 503,
    TOO_LONG: 400,  # MLflow's server answers 504, and its client would ask for the same again
    BROKEN: 500,
}
_KINDS: Final = (
    (FilterError, INVALID),
    (InvalidTraceError, INVALID),
    (TraceNotFoundError, NOT_FOUND),
    (StoreUnavailableError, UNAVAILABLE),
    (BusyError, UNAVAILABLE),
    (QueryTimeoutError, TOO_LONG),
)
# Where MLflow's server answers 500: a file that is no store, or one of a newer Wherefrom, stays so.
_FINAL: Final = 501
_LONGEST: Final = 1000


class RestError(Exception):
    """An answer that is no success; ``code`` is one of MLflow's error codes."""

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = _STATUSES[code] if status is None else status

    def to_dict(self) -> dict[str, Any]:
        """The answer's content."""
        return {"error_code": self.code, "message": cut(str(self), _LONGEST)}


def rest_error(error: Exception) -> RestError:
    """What MLflow's client is told of an error."""
    if isinstance(error, RestError):
        return error
    for kind, code in _KINDS:
        if isinstance(error, kind):
            return RestError(code, str(error))
    if isinstance(error, WherefromError):
        return RestError(BROKEN, str(error), _FINAL)
    if isinstance(error, HTTPException):
        return RestError(NO_ENDPOINT, f"not a request that is answered: {error.detail}", error.status_code)
    return RestError(
        BROKEN, "this failed, which is a bug of Wherefrom: the log of the server has the details"
    )


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
