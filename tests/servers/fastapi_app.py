"""FastAPI with the middleware around it (``outside``) and among its own (``inside``).

Run by path, as ``app.py``.
"""

from __future__ import annotations

from fastapi import FastAPI

from wherefrom import TraceMiddleware


def build() -> FastAPI:
    """The app, without any tracing of its own."""
    app = FastAPI()

    @app.get("/items/{item}")
    async def get(item: str) -> str:
        return item

    @app.get("/fail/{item}")
    async def fail(item: str) -> None:
        raise RuntimeError(f"{item} failed")

    return app


outside = TraceMiddleware(build())
inside = build()
inside.add_middleware(TraceMiddleware)
