"""MLflow: the bridge to its tracing API, export to and import from its server, and its REST API.

    app.add_middleware(TraceMiddleware, bridges=[MLflowBridge()])

Or ``WHEREFROM_BRIDGES=mlflow``. Each request becomes a live MLflow trace, and spans that MLflow records in
the request become part of ours. The bridge works with ``mlflow`` and with ``mlflow-tracing`` alone; the other
modules need neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import MissingExtraError

if TYPE_CHECKING:
    from .bridge import MLflowBridge
    from .exporter import MLflowExporter
    from .reader import MLflowReader

__all__ = ["MLflowBridge", "MLflowExporter", "MLflowReader"]

# Imported on first use: only the bridge needs MLflow.
_LAZY: Final = {"MLflowBridge": "bridge", "MLflowExporter": "exporter", "MLflowReader": "reader"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'wherefrom.mlflow' has no attribute {name!r}")
    if name == "MLflowBridge":
        try:
            import mlflow.tracing  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("wherefrom.mlflow", "mlflow") from error
    value = globals()[name] = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
