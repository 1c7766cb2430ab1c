"""Opens the exporters that the setting ``export`` names."""

from __future__ import annotations

from ..sinks import Sink
from ..sinks import open_exporter as open_line_exporter


def open_exporter(target: str) -> Sink:
    """Open the exporter of one entry of the setting ``export``.

    Raises:
        SettingsError: no exporter has that form, or a part of it is invalid.
        MissingExtraError: it sends over HTTP, and httpcore is not installed.
    """
    if target.startswith("otlp"):
        from .otlp import open_otlp

        return open_otlp(target)
    if target.startswith("mlflow"):
        from ..mlflow.exporter import open_mlflow

        return open_mlflow(target)
    return open_line_exporter(target)
