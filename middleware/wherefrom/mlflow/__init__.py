"""MLflow: our request is a live MLflow trace, and the spans that MLflow makes in it are part of ours.

    app.add_middleware(TraceMiddleware, bridges=[MLflowBridge()])

Or ``WHEREFROM_BRIDGES=mlflow``. Works with the whole of MLflow and with ``mlflow-tracing`` alone.
"""

from __future__ import annotations

from ..exceptions import MissingExtraError
from .bridge import MLflowBridge

try:
    import mlflow.tracing  # noqa: F401
except ImportError as error:
    raise MissingExtraError("wherefrom.mlflow", "mlflow") from error


__all__ = ["MLflowBridge"]
