"""The exceptions that Wherefrom raises.

The tree::

    WherefromError
    ├── SettingsError (ValueError)      an invalid setting; the message has its value
    ├── MissingExtraError (ImportError) an optional dependency that is not installed
    ├── FilterError (ValueError)        an invalid filter or ordering
    ├── TraceNotFoundError (LookupError)
    ├── InvalidTraceError (ValueError)  invalid trace data, state or tag
    └── StoreError
        ├── QueryTimeoutError (TimeoutError)  a query exceeded its deadline
        ├── QueryCancelledError         a query was cancelled
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
    """An invalid setting; the message has the variable, its value and what is valid."""


class MissingExtraError(WherefromError, ImportError):
    """An optional dependency is missing; the message names the extra to install."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'wherefrom[{extra}]'")


class FilterError(WherefromError, ValueError):
    """An invalid filter or ordering; the message shows where, and what was expected.

    ``suggestions`` are filters that may have been meant.
    """

    suggestions: tuple[str, ...] = ()


class TraceNotFoundError(WherefromError, LookupError):
    """The store has no trace with that id."""


class InvalidTraceError(WherefromError, ValueError):
    """Invalid trace data, state or tag."""


class StoreError(WherefromError):
    """A store that cannot be read or written."""


class QueryTimeoutError(StoreError, TimeoutError):
    """A query exceeded its deadline; the message says what to narrow."""


class QueryCancelledError(StoreError):
    """A query was cancelled because its client has disconnected."""


class StoreUnavailableError(StoreError):
    """The store is locked, full or out of reach; the same call may succeed later.

    ``left`` are the traces to write again if the others were written; ``None`` if none was.
    """

    def __init__(self, message: str = "", *, left: Sequence[Any] | None = None) -> None:
        super().__init__(message)
        self.left = left


class StoreVersionError(StoreError):
    """The schema of the store is newer than this version of Wherefrom supports."""
