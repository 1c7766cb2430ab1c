"""MLflow servers: traces are sent to them, whole."""

from __future__ import annotations

from .exporter import MLflowExporter

__all__ = ["MLflowExporter"]
