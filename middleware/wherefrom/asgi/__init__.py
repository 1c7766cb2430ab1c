"""The middleware: pure ASGI 3, under any server and framework that speak it."""

from __future__ import annotations

from ..tracing.bridge import Bridge
from .middleware import TraceMiddleware

__all__ = ["Bridge", "TraceMiddleware"]
