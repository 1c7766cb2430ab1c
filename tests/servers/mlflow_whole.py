"""The app with the whole of MLflow, its traces straight into SQLite: run by the Python that has it.

Arguments: folders to import from after that Python's own, the last of which has ``wherefrom``.
"""

from __future__ import annotations

import asyncio
import json
import sys

sys.path += sys.argv[1:]

import httpx
import mlflow
from mlflow_app import app, inner  # type: ignore[import-not-found]
from starlette.requests import Request


@inner.get("/odd")  # type: ignore[untyped-decorator]
async def odd(request: Request) -> str:
    """What MLflow alone loses a trace over, with a store of its own."""
    mlflow.update_current_trace(
        session_id="s" * 300,
        metadata={"a dict": {"a": 1}, "none": None, 5: "five", "surrogate": "\ud800"},  # type: ignore[dict-item]
    )
    return "odd"


async def main() -> None:
    """One request of each kind."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("/plain/1", "/sync/2", "/stream/3", "/fail/4", "/odd"):
            await client.get(path, headers={"X-Request-ID": path, "X-User-ID": "ada"})


mlflow.set_experiment("whole")
with mlflow.start_run() as run:
    asyncio.run(main())
mlflow.flush_trace_async_logging()
found = mlflow.MlflowClient().search_traces(locations=[run.info.experiment_id], flush=True)
print(
    json.dumps(
        {
            trace.info.client_request_id: {
                "run": trace.info.trace_metadata.get("mlflow.sourceRun") == run.info.run_id,
                "state": str(trace.info.state),
                "metadata": trace.info.trace_metadata,
                "tags": trace.info.tags,
                "spans": [span.name for span in trace.data.spans],
            }
            for trace in found
        }
    )
)
