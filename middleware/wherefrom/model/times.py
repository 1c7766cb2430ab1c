"""Times in MLflow's JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from . import checks


def to_rfc3339(ms: int) -> str:
    """Milliseconds since the epoch as text.

    Raises:
        ValueError, OverflowError: the year is not one from 1 to 9999.
    """
    seconds, rest = divmod(ms, 1000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{rest:03}Z"


def from_rfc3339(what: str, value: Any) -> int:
    """Milliseconds since the epoch; ``value`` may be such a number too. A time without a zone is UTC.

    Raises:
        InvalidTraceError: it is neither, or before 1970.
        ValueError: it is text, but not a time.
    """
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        value = round(moment.timestamp() * 1000)
    return checks.whole_number(what, value, checks.LATEST_MS)
