"""What goes wrong, as a status, a code for programs and one sentence for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ..exceptions import (
    FilterError,
    InvalidTraceError,
    MissingExtraError,
    QueryTimeoutError,
    StoreError,
    StoreUnavailableError,
    TraceNotFoundError,
)
from .charts.picture import NoFontError
from .parameters import ParameterError
from .queries import BusyError


@dataclass(frozen=True, slots=True)
class Failure:
    """What every answer that is no success holds, in JSON.

    ``error`` is one of the codes below, ``message`` a sentence; of a filter it shows where, with a caret.
    """

    error: str
    message: str


class AccessError(Exception):
    """A request that may not be answered; ``code`` and ``status`` say why."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


STATUSES: Final = {
    400: "A parameter or the filter cannot be used.",
    401: "The token is missing or wrong.",
    403: "Not allowed: a foreign host, or a form that is not from here.",
    404: "There is no such page or trace.",
    405: "The page is not asked in this way.",
    501: "The server lacks what this takes: the message says what.",
    503: "The store cannot be read now, or too many queries run: see `Retry-After`.",
    504: "The query took too long: narrow the time range or the filter.",
}
"""What a status means, for the OpenAPI document."""

_KINDS: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (ParameterError, 400, "bad_parameter"),
    (FilterError, 400, "bad_filter"),
    (InvalidTraceError, 400, "bad_tag"),
    (TraceNotFoundError, 404, "not_found"),
    (NoFontError, 501, "no_font"),
    (MissingExtraError, 501, "missing_extra"),
    (BusyError, 503, "busy"),
    (QueryTimeoutError, 504, "query_timeout"),
    (StoreUnavailableError, 503, "store_unavailable"),
    (StoreError, 503, "store_unreadable"),
)
_OF_STATUS: Final = {404: "not_found", 405: "method_not_allowed"}


def failure_of(error: Exception) -> tuple[int, Failure]:
    """The status and message of an error; an exception of any other package is reported as a bug."""
    if isinstance(error, AccessError):
        return error.status, Failure(error.code, str(error))
    for kind, status, code in _KINDS:
        if isinstance(error, kind):
            return status, Failure(code, str(error))
    return 500, Failure("bug", "the page failed, which is a bug: the log of the server has the details")


def failure_of_status(status: int, detail: Any) -> Failure:
    """What to say of a status that the framework answers with."""
    return Failure(_OF_STATUS.get(status, "refused"), STATUSES.get(status, str(detail)))
