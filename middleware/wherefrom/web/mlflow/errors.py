"""What goes wrong, in MLflow's form: an error code that its client knows, one sentence, and a status.

Its client asks again for about four minutes where it gets 408, 429, 500, 502, 503 or 504. So those are for
what may be better by then.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.exceptions import HTTPException

from ...exceptions import (
    FilterError,
    InvalidTraceError,
    QueryTimeoutError,
    StoreUnavailableError,
    TraceNotFoundError,
    WherefromError,
)
from ...values import cut
from ..queries import BusyError

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
