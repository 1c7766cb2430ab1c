"""The exceptions that Wherefrom raises.

The tree::

    WherefromError
    ├── SettingsError (ValueError)      a setting that cannot be used, named with its value
    ├── MissingExtraError (ImportError) an optional dependency that is not installed
    ├── FilterError (ValueError)        a filter or ordering that cannot be read
    ├── TraceNotFoundError (LookupError)
    ├── InvalidTraceError (ValueError)  trace data, a state or a tag that cannot be taken
    └── StoreError
        ├── QueryTimeoutError (TimeoutError)  a query that took longer than its deadline
        ├── QueryCancelledError         a query that was ended from outside
        ├── StoreUnavailableError       locked, full or out of reach: trying again may help
        └── StoreVersionError           written by a newer Wherefrom

The request path raises none of them: there a failure is logged, counted and dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "FilterError",
    "InvalidTraceError",
    "MissingExtraError",
    "QueryCancelledError",
    "QueryTimeoutError",
    "SettingsError",
    "StoreError",
    "StoreUnavailableError",
    "StoreVersionError",
    "TraceNotFoundError",
    "WherefromError",
]


class WherefromError(Exception):
    """Root of everything that Wherefrom raises."""


class SettingsError(WherefromError, ValueError):
    """A setting that cannot be used; the message names the variable, its value and what it takes."""


class MissingExtraError(WherefromError, ImportError):
    """An optional dependency is missing; the message names the extra to install."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'wherefrom[{extra}]'")


class FilterError(WherefromError, ValueError):
    """A filter or ordering that cannot be read; the message shows where and what was expected."""


class TraceNotFoundError(WherefromError, LookupError):
    """No trace with that id is in the store."""


class InvalidTraceError(WherefromError, ValueError):
    """Trace data, a state or a tag that cannot be taken."""


class StoreError(WherefromError):
    """A store that cannot be read or written."""


class QueryTimeoutError(StoreError, TimeoutError):
    """A query that took longer than its deadline; the message says what to narrow."""


class QueryCancelledError(StoreError):
    """A query that was ended because nobody waits for its answer any more."""


class StoreUnavailableError(StoreError):
    """A store that is locked, full or out of reach now; the same call may succeed later.

    ``left`` are the traces to write again, when the others were written; ``None`` when none was.
    """

    def __init__(self, message: str = "", *, left: Sequence[Any] | None = None) -> None:
        super().__init__(message)
        self.left = left


class StoreVersionError(StoreError):
    """A store whose schema is newer than this version of Wherefrom understands."""
