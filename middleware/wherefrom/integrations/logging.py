"""Logging: fields of the current trace on every record.

handler.addFilter(TraceFilter())
"""

from __future__ import annotations

import logging
import re
from typing import Final

from .. import keys
from .._capture.values import clean_text
from ..context import span_var, trace_var

__all__ = ["FIELDS", "TraceFilter", "current_fields", "one_line"]

FIELDS: Final = ("trace_id", "span_id", "request_id", "session_id", "user_id")

# All characters that a terminal, an editor or str.splitlines() treats as the end of a line.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def current_fields() -> dict[str, str]:
    """Return the fields that are set, each as one line of text; none outside a trace."""
    trace, span = trace_var.get(), span_var.get()
    if trace is None:
        return {}
    info = trace.info
    values = (
        info.trace_id,
        None if span is None else span.span_id,
        info.client_request_id,
        info.trace_metadata.get(keys.SESSION),
        info.trace_metadata.get(keys.USER),
    )
    return {name: one_line(value) for name, value in zip(FIELDS, values, strict=True) if value}


def one_line(value: object) -> str:
    r"""Return ``value`` as one line: control characters are written as ``\n``, ``\x1b``, ``\u2028``."""
    text = clean_text(value)
    return text if text.isprintable() else _CONTROL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class TraceFilter(logging.Filter):
    """Sets ``trace_id``, ``span_id``, ``request_id``, ``session_id`` and ``user_id`` on log records.

    Add it to handlers: filters of a logger do not see records of its children. A field without a value is
    ``default``, so a format with these fields always works. A field that a record has already, from ``extra``
    or from the thread that queued it, is not changed.

    Args:
        name: As in ``logging.Filter``: accept only records of this logger and its children.
        default: The text of a field without a value.
    """

    def __init__(self, name: str = "", *, default: str = "-") -> None:
        super().__init__(name)
        self.default = default

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the fields on a record."""
        known, present = current_fields(), record.__dict__
        for field in FIELDS:
            if field not in present:
                present[field] = known.get(field, self.default)
        return bool(super().filter(record))
