"""Errors as responses: a status, a code for programs and a sentence for people."""

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
    """The JSON of every error response.

    ``error`` is one of the codes below, ``message`` a sentence; for a filter it marks the place with a caret,
    and ``suggestions`` are filters that may have been meant.
    """

    error: str
    message: str
    suggestions: tuple[str, ...] = ()


class AccessError(Exception):
    """Access denied, with the ``status`` and ``code`` of the response."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


STATUSES: Final = {
    400: "A parameter or the filter is invalid.",
    401: "The token is missing or wrong.",
    403: "Forbidden: an unknown host, or a form from another site.",
    404: "No such page or trace.",
    405: "Method not allowed.",
    501: "The server lacks a package or a font; the message names it.",
    503: "The store cannot be read, or too many queries are running: see `Retry-After`.",
    504: "The query exceeded its deadline: narrow the time range or the filter.",
}
"""The error statuses, as the OpenAPI document describes them."""

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
    """The status and the failure for an exception; an unknown exception is a bug, reported as 500."""
    if isinstance(error, AccessError):
        return error.status, Failure(error.code, str(error))
    for kind, status, code in _KINDS:
        if isinstance(error, kind):
            return status, Failure(code, str(error), getattr(error, "suggestions", ()))
    return 500, Failure("bug", "internal error: this is a bug; see the log of the server")


def failure_of_status(status: int, detail: Any) -> Failure:
    """The failure for an error status that the framework raised."""
    return Failure(_OF_STATUS.get(status, "refused"), STATUSES.get(status, str(detail)))
