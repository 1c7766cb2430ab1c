"""MLflow servers: traces are sent to them, and read from them, whole."""

from __future__ import annotations

from .exporter import MLflowExporter
from .reader import MLflowReader

__all__ = ["MLflowExporter", "MLflowReader"]
