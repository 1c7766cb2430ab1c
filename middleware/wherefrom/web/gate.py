"""The gate before every page: the host, the token or rule, and the cookie that forms are known by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..asgi.middleware import SCOPE_KEY
from .access import Access
from .failures import AccessError
from .forms import CSRF_COOKIE, new_nonce

LOGIN: Final = "/login"
VISIT: Final = "wherefrom.visit"

Refuse = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Visit:
    """What the templates need to know of who asks: what forms hold, and whether there is a way out."""

    csrf: str
    can_leave: bool


class Gate:
    """Lets requests pass to the pages, or answers them itself."""

    def __init__(self, app: ASGIApp, access: Access, refuse: Refuse) -> None:
        self.app = app
        self._access = access
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI calls it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if (trace := scope.get(SCOPE_KEY)) is not None:
            trace.leave_out()  # looking at traces makes none
        request = Request(scope, receive)
        nonce = request.cookies.get(CSRF_COOKIE)
        if nonce is None:
            nonce = new_nonce()
            send = _with_cookie(send, CSRF_COOKIE, nonce, request)
        scope[VISIT] = Visit(self._access.csrf(nonce), self._access.token is not None)
        try:
            self._access.check_host(request)
            answer = None if _is_open(request) else await self._stop(request)
        except AccessError as error:
            answer = await self._refuse(request, error)
        await (answer or self.app)(scope, receive, send)

    async def _stop(self, request: Request) -> Response | None:
        """What to answer instead of the page; ``None`` where it may be seen."""
        if await self._access.allows(request):
            return None
        if self._access.token is None:
            raise AccessError(403, "forbidden", "this application does not let you see its traces")
        if request.method in {"GET", "HEAD"} and not request.scope["path"].endswith(".json"):
            return RedirectResponse(f"{root_of(request)}{LOGIN}?next={quote(_wanted(request))}", 303)
        raise AccessError(401, "no_token", "send the token as `Authorization: Bearer`, or log in first")


def root_of(request: Request) -> str:
    """Where the application is mounted: what every address of it begins with."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def path_of(request: Request) -> str:
    """The path below where the application is mounted."""
    return str(request.scope["path"]).removeprefix(root_of(request)) or "/"


def cookie_path(request: Request) -> str:
    """Where cookies of ours are sent."""
    return root_of(request) or "/"


def _is_open(request: Request) -> bool:
    path = path_of(request)
    return path == LOGIN or path.startswith("/static/")


def _wanted(request: Request) -> str:
    query = request.url.query
    return path_of(request) + (f"?{query}" if query else "")


def _with_cookie(send: Send, name: str, value: str, request: Request) -> Send:
    """Sets the cookie with a page of HTML; files that may be cached for all set none."""

    async def send_with_cookie(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if headers.get("content-type", "").startswith("text/html"):
                holder = Response()
                holder.set_cookie(
                    name,
                    value,
                    path=cookie_path(request),
                    secure=request.url.scheme == "https",
                    httponly=True,
                    samesite="strict",
                )
                headers.append("set-cookie", holder.headers["set-cookie"])
        await send(message)

    return send_with_cookie
