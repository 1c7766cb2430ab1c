"""OpenTelemetry: our request and its spans are current there, and its spans are part of our trace.

    app.add_middleware(TraceMiddleware, bridges=[OpenTelemetryBridge()])

Or ``WHEREFROM_BRIDGES=opentelemetry``.
"""

from __future__ import annotations

from ..exceptions import MissingExtraError
from .bridge import OpenTelemetryBridge, WherefromSpanProcessor

try:
    import opentelemetry.sdk.trace  # noqa: F401
except ImportError as error:
    raise MissingExtraError("wherefrom.otel", "otel") from error


__all__ = ["OpenTelemetryBridge", "WherefromSpanProcessor"]
