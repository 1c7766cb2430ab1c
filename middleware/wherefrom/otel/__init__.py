"""OpenTelemetry: the bridge to its API, and OTLP, its wire format.

    app.add_middleware(TraceMiddleware, bridges=[OpenTelemetryBridge()])

Or ``WHEREFROM_BRIDGES=opentelemetry``. A request and its spans become OpenTelemetry's current spans, and the
spans that OpenTelemetry records in a request become part of its trace.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import MissingExtraError

if TYPE_CHECKING:
    from .bridge import OpenTelemetryBridge, WherefromSpanProcessor
    from .instrumentors import switch_on as switch_on

__all__ = ["OpenTelemetryBridge", "WherefromSpanProcessor"]

# Imported on first use: the OTLP exporter needs this package and not OpenTelemetry's SDK.
_LAZY: Final = {
    "OpenTelemetryBridge": "bridge",
    "WherefromSpanProcessor": "bridge",
    "switch_on": "instrumentors",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'wherefrom.otel' has no attribute {name!r}")
    try:
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("wherefrom.otel", "otel") from error
    value = globals()[name] = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
