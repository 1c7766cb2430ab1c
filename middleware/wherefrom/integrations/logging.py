"""What log lines say of the current trace."""

from __future__ import annotations

import logging
import re
from typing import Final

from .. import keys
from .._capture.values import clean_text
from ..context import span_var, trace_var

__all__ = ["FIELDS", "current_fields", "one_line"]

FIELDS: Final = ("trace_id", "span_id", "request_id", "session_id", "user_id")

# Whatever a terminal, an editor or str.splitlines() takes for the end of a line is among these.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def current_fields() -> dict[str, str]:
    """The fields that are known here, each on one line; none outside of a trace."""
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
    r"""``value`` as text that stays on its line: controls are written as ``\n``, ``\x1b``, ``\u2028``."""
    text = clean_text(value)
    return text if text.isprintable() else _CONTROL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


__all__ = ["TraceFilter"]


class TraceFilter(logging.Filter):
    """Puts ``trace_id``, ``span_id``, ``request_id``, ``session_id`` and ``user_id`` on records.

    Add it to handlers: a logger's filters do not see what its children log. What is not known, as
    everything outside of a trace, is ``default``, so a format that names the fields always works. A record
    that has a field already, from ``extra`` or from the thread that queued it, keeps it.

    Args:
        name: As of ``logging.Filter``: let pass only records of this logger and below.
        default: What to write where a field is not known.
    """

    def __init__(self, name: str = "", *, default: str = "-") -> None:
        super().__init__(name)
        self.default = default

    def filter(self, record: logging.LogRecord) -> bool:
        """Put the fields on a record."""
        known, present = current_fields(), record.__dict__
        for field in FIELDS:
            if field not in present:
                present[field] = known.get(field, self.default)
        return bool(super().filter(record))
