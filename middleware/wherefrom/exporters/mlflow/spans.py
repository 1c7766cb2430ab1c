"""The spans of traces, to an MLflow server: by OTLP, and nothing but what they hold."""

from __future__ import annotations

from typing import Any, Final

from ..otlp import OTLPExporter
from .api import WORTH_WAITING

_MAX_BODY: Final = 1_000_000


class MLflowSpans(OTLPExporter):
    """An OTLP exporter that leaves it to ``TraceInfos`` to tell of the trace and its process.

    Of resource attributes MLflow makes tags, and what is added to a root span stays there. The server
    commits a request in one transaction, some 10 ms a trace, so requests are kept short.
    """

    _max_body = _MAX_BODY
    _retryable = WORTH_WAITING
    _sent_once = False  # what is told of the trace may have to be told again

    def _resource_attributes(self, *_: Any) -> dict[str, Any]:
        return {}

    def _root_attributes(self, *_: Any) -> list[Any]:
        return []
