"""Exporters send traces to servers over HTTP. ``wherefrom.mlflow`` has the one for MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .otlp import OTLPExporter

__all__ = ["OTLPExporter"]


def __getattr__(name: str) -> Any:
    if name != "OTLPExporter":
        raise AttributeError(f"module 'wherefrom.exporters' has no attribute {name!r}")
    from .otlp import OTLPExporter  # on first use: it needs httpcore

    return OTLPExporter


def __dir__() -> list[str]:
    return __all__
