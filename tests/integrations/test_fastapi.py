"""FastAPI's dependencies for the trace and the ids of a request."""

from __future__ import annotations

from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI

from wherefrom import MemorySink, Settings, TraceMiddleware, current_trace, update_current_trace
from wherefrom.integrations.fastapi import CurrentTrace, RequestId, SessionId, UserId
from wherefrom.tracing.live import LiveTrace

HEADERS = {"X-Request-ID": "r-1", "X-Session-ID": "chat-7", "X-User-ID": "ada"}


def tenant(user: UserId) -> str | None:
    return user and f"tenant of {user}"


def make_app() -> FastAPI:
    app = FastAPI()
    router = APIRouter()

    @router.get("/ids")
    async def ids(
        request_id: RequestId, session: SessionId, user: UserId, of: Annotated[str | None, Depends(tenant)]
    ) -> list[str | None]:
        return [request_id, session, user, of]

    @router.get("/plain")
    def plain(request_id: RequestId, session: SessionId, user: UserId) -> list[str | None]:
        return [request_id, session, user]

    @router.get("/trace")
    def trace(
        live: CurrentTrace, other: Annotated[LiveTrace | None, Depends(current_trace)]
    ) -> list[str | None]:
        assert live is other
        if live is None:
            return []
        live.add_tags({"team": "search"})
        return [live.info.trace_id]

    @router.get("/late")
    def late(user: UserId) -> str | None:
        return user

    async def login() -> None:
        update_current_trace(user="bob")

    app.include_router(router)
    app.get("/login", dependencies=[Depends(login)])(late)
    return app


async def get(app: Any, path: str, headers: dict[str, str] | None = None) -> Any:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return (await client.get(path, headers=headers)).json()


async def test_the_ids_of_the_request() -> None:
    """In coroutines and plain handlers, and in dependencies of dependencies."""
    app = TraceMiddleware(make_app(), sink=MemorySink())
    assert await get(app, "/ids", HEADERS) == ["r-1", "chat-7", "ada", "tenant of ada"]
    assert await get(app, "/plain", HEADERS) == ["r-1", "chat-7", "ada"]
    request_id, session, user = await get(app, "/plain")
    assert len(request_id) == 36
    assert (session, user) == (None, None)
    assert await get(app, "/login", HEADERS) == "bob"


async def test_the_trace_of_the_request() -> None:
    """``Depends(current_trace)`` gives the same."""
    sink = MemorySink()
    (trace_id,) = await get(TraceMiddleware(make_app(), sink=sink), "/trace")
    (trace,) = sink.traces
    assert (trace.info.trace_id, trace.info.tags["team"]) == (trace_id, "search")


@pytest.mark.parametrize("settings", [Settings(enabled=False), Settings(exclude="*")])
async def test_a_request_without_a_trace_has_none_of_them(settings: Settings) -> None:
    """The handler runs all the same."""
    app = TraceMiddleware(make_app(), settings=settings, sink=MemorySink())
    assert await get(app, "/ids", HEADERS) == [None, None, None, None]
    assert await get(app, "/trace") == []


async def test_the_user_is_hashed_where_that_is_set() -> None:
    """As it is recorded."""
    app = TraceMiddleware(make_app(), settings=Settings(user_hash_key="k"), sink=MemorySink())
    assert len((await get(app, "/plain", HEADERS))[2]) == 32


def test_the_openapi_document_shows_nothing_of_them() -> None:
    """No parameters, no models."""
    document = make_app().openapi()
    assert all("parameters" not in item["get"] for item in document["paths"].values())
    assert "schemas" not in document.get("components", {})
