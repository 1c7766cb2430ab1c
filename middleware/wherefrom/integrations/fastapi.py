"""FastAPI: dependencies for the current trace and the ids of the request.

    @app.get("/me")
    async def me(user: UserId, request_id: RequestId) -> dict[str, str | None]: ...

They have no parameters, so they add nothing to the OpenAPI document.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from ..context import context
from ..exceptions import MissingExtraError
from ..tracing.api import current_trace
from ..tracing.live import LiveTrace

try:
    from fastapi import Depends
except ImportError as error:
    raise MissingExtraError("wherefrom.integrations.fastapi", "ui") from error

__all__ = ["CurrentTrace", "RequestId", "SessionId", "UserId"]


# Coroutines: FastAPI runs plain functions in a thread.
async def _current_trace() -> LiveTrace | None:
    return current_trace()


async def _request_id() -> str | None:
    return context.request_id


async def _session_id() -> str | None:
    return context.session_id


async def _user_id() -> str | None:
    return context.user_id


CurrentTrace: TypeAlias = Annotated[LiveTrace | None, Depends(_current_trace)]
"""The trace of the request, or ``None``."""

RequestId: TypeAlias = Annotated[str | None, Depends(_request_id)]
"""The accepted or generated request id; ``None`` in a request without a trace."""

SessionId: TypeAlias = Annotated[str | None, Depends(_session_id)]
"""The session id, or ``None``."""

UserId: TypeAlias = Annotated[str | None, Depends(_user_id)]
"""The user id, hashed if ``user_hash_key`` is set, or ``None``."""
