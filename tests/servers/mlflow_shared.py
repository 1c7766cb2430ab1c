"""MLflow on OpenTelemetry's provider (``MLFLOW_USE_DEFAULT_TRACER_PROVIDER=false``): in a process of its own.

Arguments: the bridges, where FastAPI's telemetry stands (``outside`` of ours or ``inside``), the experiment.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
import mlflow
from fastapi import FastAPI
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import wherefrom
from wherefrom import MemorySink, Settings, TraceMiddleware

bridges, order, experiment = sys.argv[1:]
exporter = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
otel.set_tracer_provider(provider)
library = otel.get_tracer("library")
mlflow.set_experiment(experiment_id=experiment)

config: Any = {"tracer_provider": provider, "metrics": False, "logs": False}
app = FastAPI(telemetry=config)


@app.get("/items/{item}")
@mlflow.trace
async def handler(item: str) -> str:
    mlflow.update_current_trace(metadata={"item": item})
    with wherefrom.start_span("ours"), library.start_as_current_span("library"), mlflow.start_span("theirs"):
        return item


sink = MemorySink()
settings = Settings(store="none", bridges=bridges)
served: Any = app
if order == "outside":
    app.add_middleware(TraceMiddleware, sink=sink, settings=settings)
else:
    served = TraceMiddleware(app, sink=sink, settings=settings)


async def main() -> None:
    """Two requests at once."""
    transport = httpx.ASGITransport(served)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await asyncio.gather(*(client.get(f"/items/{n}", headers={"X-User-ID": f"u{n}"}) for n in range(2)))


def tree(spans: Any, span_id: Any, parent_id: Any) -> list[tuple[str, str]]:
    """Each span's name with its parent's."""
    names = {span_id(span): span.name for span in spans}
    return sorted((span.name, names.get(parent_id(span), "")) for span in spans)


asyncio.run(main())
mlflow.flush_trace_async_logging()
found = mlflow.search_traces(locations=[experiment], return_type="list")
exported: dict[str, list[Any]] = {}
for span in exporter.get_finished_spans():
    assert span.context is not None
    exported.setdefault(f"tr-{span.context.trace_id:032x}", []).append(span)
print(
    json.dumps(
        {
            "errors": wherefrom.stats().errors,
            "ours": {
                trace.info.trace_id: tree(trace.data.spans, lambda s: s.span_id, lambda s: s.parent_id)
                for trace in sink.traces
            },
            "theirs": {
                trace.info.trace_id: tree(trace.data.spans, lambda s: s.span_id, lambda s: s.parent_id)
                for trace in found
            },
            "exported": {
                trace_id: tree(spans, lambda s: s.context.span_id, lambda s: s.parent and s.parent.span_id)
                for trace_id, spans in exported.items()
            },
            "said": {
                trace.info.trace_metadata["item"]: trace.info.trace_metadata["mlflow.trace.user"]
                for trace in [*found, *sink.traces]
            },
            "names": [trace.info.tags["mlflow.traceName"] for trace in found],
        }
    ),
    flush=True,
)
