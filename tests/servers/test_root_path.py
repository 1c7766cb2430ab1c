"""A prefix before the app's own paths, under real servers: names and excluded paths are the app's."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from .processes import PROMPT, running, start


@pytest.mark.parametrize("app", ["fastapi_app:outside", "fastapi_app:inside"])
@pytest.mark.parametrize(
    ("server", "prefix", "recorded"),
    [
        ("uvicorn --root-path /api", "", "/api"),  # a proxy strips the prefix, and uvicorn puts it back
        ("hypercorn --root-path /api", "/api", "/api"),
        ("hypercorn --root-path /api", "", ""),
    ],
)
async def test_a_root_path(tmp_path: Path, app: str, server: str, prefix: str, recorded: str) -> None:
    """The same name around and inside; a glob means the path that the app's routes see."""
    served = start(tmp_path, server, app=app, environ={**PROMPT, "WHEREFROM_EXCLUDE": "/docs,/api/*"})
    request = uuid4().hex
    with running(served):
        assert (await served.get(f"{prefix}/docs")).status == 200
        assert (await served.get(f"{prefix}/items/api", {"X-Request-ID": request})).status == 200
        trace = await served.trace(request)
        assert trace.name == "GET /items/{item}"
        assert trace.attributes["url.path"] == f"{recorded}/items/api"
        assert served.stored_ids() == {request}
