"""Logging in with the token, and out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from .access import SESSION_COOKIE, Access
from .forms import read_form
from .gate import LOGIN, cookie_path, root_of
from .rendering import render

Context = Callable[[Request], dict[str, Any]]

_MONTH_S: Final = 30 * 24 * 3600


def login_routes(access: Access, context: Context) -> list[BaseRoute]:
    """The routes; there is nothing to log in to without a token."""
    if access.token is None:
        return []

    def answer_form(request: Request, message: str = "", status: int = 200) -> Response:
        wanted = _within(request.query_params.get("next", ""))
        return HTMLResponse(
            render("login.html", context(request) | {"wanted": wanted, "message": message}), status
        )

    async def log_in(request: Request) -> Response:
        if request.method != "POST":
            return answer_form(request)
        fields = await read_form(request, access.secret)
        if not access.is_token(fields.get("token", "").strip()):
            return answer_form(request, "This is not the token.", 401)
        response = RedirectResponse(root_of(request) + _within(fields.get("next", "")), 303)
        response.set_cookie(
            SESSION_COOKIE,
            access.session,
            max_age=_MONTH_S,
            path=cookie_path(request),
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    async def log_out(request: Request) -> Response:
        await read_form(request, access.secret)
        response = RedirectResponse(f"{root_of(request)}{LOGIN}", 303)
        response.delete_cookie(SESSION_COOKIE, path=cookie_path(request))
        return response

    return [Route(LOGIN, log_in, methods=["GET", "POST"]), Route("/logout", log_out, methods=["POST"])]


def _within(wanted: str) -> str:
    """A place of ours to go to: no address of another site, however it is written."""
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    return wanted if is_ours and wanted.isprintable() else "/"
