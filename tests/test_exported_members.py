"""The public names, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import wherefrom

PUBLIC = [
    "FilterError",
    "MemorySink",
    "PagedList",
    "Settings",
    "Span",
    "SpanContext",
    "SpanEvent",
    "SpanStatus",
    "SpanType",
    "Stats",
    "Trace",
    "TraceClient",
    "TraceInfo",
    "TraceMiddleware",
    "TraceState",
    "WherefromError",
    "context",
    "copy_context_to",
    "current_span",
    "current_trace",
    "extract",
    "flush",
    "get_trace",
    "inject",
    "log_feedback",
    "record_feature_flag",
    "search_traces",
    "set_active_model",
    "start_span",
    "start_trace",
    "stats",
    "trace",
    "update_current_trace",
]

HEAVY = {
    "fastapi",
    "starlette",
    "sqlalchemy",
    "sqlite3",
    "_sqlite3",
    "psycopg",
    "jinja2",
    "typer",
    "rich",
    "uvicorn",
    "httpcore",
    "httpx",
    "mlflow",
    "opentelemetry",
}


def test_the_public_names_are_these() -> None:
    """``from wherefrom import ...``: these names and no others, sorted."""
    assert wherefrom.__all__ == dir(wherefrom) == PUBLIC == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there(name: str) -> None:
    """Names that are imported when they are first used are there all the same."""
    assert getattr(wherefrom, name) is not None


def test_other_names_are_not() -> None:
    """A name that is not there says so as any module would."""
    with pytest.raises(AttributeError, match="module 'wherefrom' has no attribute 'tracer'"):
        wherefrom.tracer  # noqa: B018


def imported(code: str) -> set[str]:
    """The top-level modules that code brings into a fresh interpreter."""
    program = f"import sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before))"
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    return {name.partition(".")[0] for name in output.split()}


def test_importing_brings_in_nothing_heavy() -> None:
    """``import wherefrom`` brings in no framework, SQLAlchemy, template engine or driver."""
    found = imported("import wherefrom")
    assert "wherefrom" in found
    assert found & HEAVY == set()


def test_a_middleware_with_a_sink_of_its_own_needs_no_store() -> None:
    """With a sink given, neither SQLAlchemy nor a driver is imported even by a request's middleware."""
    code = "import wherefrom; wherefrom.TraceMiddleware(None, sink=wherefrom.MemorySink())"
    assert imported(code) & HEAVY == set()


@pytest.mark.parametrize("name", ["wherefrom.exporters", "wherefrom.mlflow", "wherefrom.otel"])
def test_packages_for_other_tools_import_them_on_first_use(name: str) -> None:
    """Importing them brings in neither MLflow nor OpenTelemetry: only the bridges need these."""
    assert imported(f"import {name}") & HEAVY == set()
    module = import_module(name)
    assert dir(module) == module.__all__ == sorted(module.__all__)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_the_exporters_need_neither_mlflow_nor_opentelemetry() -> None:
    """Both servers are spoken to without their client libraries."""
    names = {"wherefrom.mlflow": "MLflowExporter, MLflowReader", "wherefrom.exporters": "OTLPExporter"}
    code = "; ".join(f"from {module} import {found}" for module, found in names.items())
    assert imported(code) & {"mlflow", "opentelemetry", "google"} == set()
