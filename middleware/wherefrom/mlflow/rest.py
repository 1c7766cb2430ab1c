"""The requests and errors of MLflow's REST API as ``mlflow.serve`` answers it.

An error has a code that MLflow's client knows, a sentence and a status. The client retries for about four
minutes after 408, 429, 500, 502, 503 and 504, so these are for what may succeed by then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from .._capture.values import cut
from ..exceptions import (
    FilterError,
    InvalidTraceError,
    QueryTimeoutError,
    StoreUnavailableError,
    TraceNotFoundError,
    WherefromError,
)
from ..web.queries import BusyError

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
# Not 500, after which the client retries: a file that is not a store, or of a newer version, stays so.
_FINAL: Final = 501
_LONGEST: Final = 1000  # a message quotes the filter, which may be long
_SHOWN: Final = 100
_SHOWN_VALUE: Final = 60
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")


class RestError(Exception):
    """An error response; ``code`` is one of MLflow's error codes."""

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = _STATUSES[code] if status is None else status

    def to_dict(self) -> dict[str, Any]:
        """Return the body of the response."""
        return {"error_code": self.code, "message": cut(str(self), _LONGEST)}


def rest_error(error: Exception) -> RestError:
    """Return the response to an error."""
    if isinstance(error, RestError):
        return error
    for kind, code in _KINDS:
        if isinstance(error, kind):
            return RestError(code, str(error))
    if isinstance(error, WherefromError):
        return RestError(BROKEN, str(error), _FINAL)
    if isinstance(error, HTTPException):
        return RestError(NO_ENDPOINT, f"this request is not supported: {error.detail}", error.status_code)
    return RestError(
        BROKEN, "the request failed because of a bug in Wherefrom; the log of the server has the details"
    )


_API: Final = re.compile(r"/(?:ajax-)?api/[0-9.]+/mlflow/|/(?=v1/)")

# Method and path after the prefix; the first match counts.
_SENTENCES: Final = (
    (
        r"POST v1/traces|POST traces|PATCH traces/[^/]+",
        "this API only reads traces; Wherefrom's middleware records them",
    ),
    (
        r"POST traces/delete-traces",
        "to delete traces use `wherefrom prune` or wherefrom.TraceClient.delete_traces",
    ),
    (
        r"POST experiments/(?!search).+",
        "this API does not change experiments; the first trace under WHEREFROM_EXPERIMENT creates one",
    ),
    (
        r"GET traces(/[^/]+/info)?",
        "reading traces takes a client of MLflow 3, not MLflow 2",
    ),
)
_ANY: Final = "Wherefrom has traces, their tags, feedback and experiments, and nothing else of MLflow's"


def refusal(method: str, path: str) -> RestError:
    """Return the error for a call that is not supported."""
    request = f"{method} {path if len(path) <= _SHOWN else path[:_SHOWN] + '...'}"
    if (prefix := _API.match(path)) is None:
        return RestError(NO_ENDPOINT, f"there is nothing at {request}: this API is for MLflow's client")
    call = f"{method} {path[prefix.end() :]}"
    sentence = next((text for pattern, text in _SENTENCES if re.fullmatch(pattern, call, re.DOTALL)), _ANY)
    return RestError(NOT_IMPLEMENTED, f"{request} is not supported: {sentence}")


class Arguments:
    """The parameters of a GET, or the fields of a JSON body; a getter returns ``None`` for a missing one.

    Raises:
        RestError: in each getter, if the value has another type.
    """

    def __init__(self, given: Mapping[str, Any], path: Mapping[str, str]) -> None:
        self._given = given
        self._path = path

    @classmethod
    def of_query(cls, query: QueryParams, path: Mapping[str, str]) -> Arguments:
        """Read the parameters of a GET; one that occurs once may stand for a list."""
        return cls({name: _Several(query.getlist(name)) for name in query}, path)

    @classmethod
    def of_body(cls, body: bytes, path: Mapping[str, str]) -> Arguments:
        """Read a JSON body.

        Raises:
            RestError: it is not a JSON object.
        """
        try:
            given = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise RestError(INVALID, f"the body is not JSON: {error}") from error
        if not isinstance(given, dict):
            raise RestError(INVALID, f"the body takes a JSON object, not {_shown(given)}")
        return cls(given, path)

    def in_path(self, name: str) -> str:
        """Return a part of the path."""
        return self._path[name]

    def text(self, name: str) -> str | None:
        """Return a string."""
        value = self._one(name)
        if value is not None and not isinstance(value, str):
            raise _mistyped(name, "a string", value)
        return value

    def required_text(self, name: str) -> str:
        """Return a string that is not empty."""
        if not (value := self.text(name)):
            raise _missing(name)
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of strings."""
        values = self.items(name)
        for value in values:
            if not isinstance(value, str):
                raise _mistyped(name, "a list of strings", value)
        return values

    def required_texts(self, name: str, most: int) -> list[str]:
        """Return a list of 1 to ``most`` strings."""
        values = self.texts(name)
        if not values:
            raise _missing(name)
        if len(values) > most:
            raise RestError(INVALID, f"{name} takes at most {most:,} values, not {len(values):,}")
        return values

    def items(self, name: str) -> list[Any]:
        """Return a list of any values."""
        value = self._given.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise _mistyped(name, "a list", value)
        return value

    def required_object(self, name: str) -> dict[str, Any]:
        """Return an object."""
        value = self._given.get(name)
        if value is None:
            raise _missing(name)
        if not isinstance(value, dict):
            raise _mistyped(name, "an object", value)
        return value

    def integer(self, name: str, default: int, most: int) -> int:
        """Return an integer from 1 to ``most``, which may be a string as in the JSON mapping of protobuf."""
        value = self._one(name)
        if value is None:
            return default
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            value = int(value)
        if type(value) is not int or not 1 <= value <= most:
            raise _mistyped(name, f"a number from 1 to {most:,}", value)
        return value

    def is_one_of(self, name: str, values: Sequence[Any]) -> bool:
        """Whether the value is one of ``values``."""
        return self._one(name) in values

    def _one(self, name: str) -> Any:
        value = self._given.get(name)
        return value[0] if isinstance(value, _Several) else value


class _Several(list[str]):
    """The values of a query parameter."""


def _missing(name: str) -> RestError:
    return RestError(INVALID, f"Missing value for required parameter '{name}'.")


def _mistyped(name: str, takes: str, value: Any) -> RestError:
    return RestError(INVALID, f"{name} takes {takes}, not {_shown(value)}")


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _SHOWN_VALUE else text[:_SHOWN_VALUE] + "..."
