"""Traces that start outside a request go where the test sees them; an OpenTelemetry provider of its own."""

from __future__ import annotations

from ..integrations.conftest import outside, telemetry

__all__ = ["outside", "telemetry"]
