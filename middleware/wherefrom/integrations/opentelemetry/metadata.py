"""Our metadata as attributes of the server span, whoever opened it."""

from __future__ import annotations

from typing import Final

from ... import keys
from ...model import TraceInfo

REQUEST_ID: Final = "client_request_id"
_LEFT_OUT: Final = frozenset({keys.SCHEMA_VERSION, keys.TRACE_INPUTS, keys.TRACE_OUTPUTS})


def trace_attributes(info: TraceInfo) -> dict[str, str]:
    """The metadata under its own keys, and session and user also under OpenTelemetry's."""
    metadata = info.trace_metadata
    attributes = {key: value for key, value in metadata.items() if key not in _LEFT_OUT}
    if info.client_request_id is not None:
        attributes[REQUEST_ID] = info.client_request_id
    if keys.SESSION in metadata:
        attributes["session.id"] = metadata[keys.SESSION]
    if keys.USER in metadata:
        attributes["user.id"] = metadata[keys.USER]
    return attributes
