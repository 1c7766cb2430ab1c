"""Exporters: places that traces are only sent to."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..sinks import Sink
from ..sinks import open_exporter as open_line_exporter

if TYPE_CHECKING:
    from .mlflow import MLflowExporter
    from .otlp import OTLPExporter

__all__ = ["MLflowExporter", "OTLPExporter", "open_exporter"]

_LAZY = {"MLflowExporter": "mlflow", "OTLPExporter": "otlp"}


def open_exporter(target: str) -> Sink:
    """The exporter of one entry of the setting ``export``.

    Raises:
        SettingsError: no exporter has that form, or something in it cannot be used.
    """
    if target.startswith("otlp"):
        from .targets import open_otlp

        return open_otlp(target)
    if target.startswith("mlflow"):
        from .mlflow.targets import open_mlflow

        return open_mlflow(target)
    return open_line_exporter(target)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'wherefrom.exporters' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
