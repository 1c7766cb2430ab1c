"""structlog: a processor that puts the current trace into every event.

    structlog.configure(processors=[add_trace, structlog.processors.JSONRenderer()])

It is a plain function: structlog itself is not imported.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from .logging import current_fields

__all__ = ["add_trace"]


def add_trace(
    _logger: Any, _method_name: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Add ``trace_id``, ``span_id``, ``request_id``, ``session_id`` and ``user_id``, those that are set.

    A value that the event or the logger has under one of these names is not changed.
    """
    for field, value in current_fields().items():
        event_dict.setdefault(field, value)
    return event_dict
