"""The standard library's logging: the current trace on every record.

    handler.addFilter(TraceFilter())
    handler.setFormatter(logging.Formatter("%(levelname)s [%(trace_id)s %(user_id)s] %(message)s"))

Nothing that a client sent can end a line.
"""

from __future__ import annotations

import logging

from .fields import FIELDS, current_fields

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
