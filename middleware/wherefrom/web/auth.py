"""Access control: tokens, session cookies, the app's own rule, host and CSRF checks, security headers."""

from __future__ import annotations

import hmac
import inspect
import re
import secrets
from base64 import b64decode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlsplit

import orjson
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..asgi.exchange import SCOPE_KEY
from .failures import AccessError
from .page import API
from .rendering import render

Rule = Callable[[Request], bool | Awaitable[bool]]
"""Returns whether a request has access; may be a coroutine function."""

SESSION_COOKIE: Final = "wherefrom_session"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::[0-9]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Access:
    """Who has access: clients with ``token`` or those that ``rule`` admits; with neither, every client.

    ``hosts`` are the accepted values of the ``Host`` header, which protects a page without a token against
    DNS rebinding. ``None``: any host.
    """

    token: str | None = None
    rule: Rule | None = None
    hosts: frozenset[str] | None = None

    def check_host(self, request: Request) -> None:
        """Check the ``Host`` header.

        Raises:
            AccessError: it names another host.
        """
        if self.hosts is not None and _host(request) not in self.hosts:
            raise AccessError(403, "foreign_host", "this page accepts requests from this machine only")

    async def allows(self, request: Request) -> bool:
        """Whether the request has access."""
        if self.token is None and self.rule is None:
            return True
        if self.token is not None and self._carries_token(request):
            return True
        if self.rule is None:
            return False
        answer = self.rule(request)
        return bool(await answer if inspect.isawaitable(answer) else answer)

    def is_token(self, text: str) -> bool:
        """Whether this is the token, compared in constant time."""
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())

    @property
    def session(self) -> str:
        """The value of the session cookie: derived from the token, not the token itself."""
        return hmac.new(self.secret.encode(), b"session", sha256).hexdigest()

    @property
    def secret(self) -> str:
        """The key that signs forms."""
        return self.token or ""

    def csrf(self, nonce: str) -> str:
        """The CSRF token for the nonce of the cookie."""
        return csrf_token(nonce, self.secret)

    def _carries_token(self, request: Request) -> bool:
        cookie = request.cookies.get(SESSION_COOKIE, "")
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        has_cookie = hmac.compare_digest(cookie.encode(), self.session.encode())
        if scheme.lower() == "basic":  # what a webhook sends that only has an address: http://:token@host/
            credentials = _password(credentials)
        elif scheme.lower() != "bearer":
            return has_cookie
        return has_cookie or self.is_token(credentials.strip())


def _password(credentials: str) -> str:
    try:
        return b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _host(request: Request) -> str | None:
    found = _HOST.fullmatch(request.headers.get("host", ""))
    return found[1].strip("[]").lower() if found else None


CSRF_COOKIE: Final = "wherefrom_csrf"
CSRF_FIELD: Final = "csrf"

_MAX_BODY: Final = 1_000_000  # a form has a tag, which is shorter
_MAX_FIELDS: Final = 20  # parsing more is work that only attackers ask for
_OWN_SITE: Final = frozenset({"same-origin", "none"})


def new_nonce() -> str:
    """A new value for the CSRF cookie."""
    return secrets.token_urlsafe(24)


def csrf_token(nonce: str, secret: str) -> str:
    """The CSRF token for a nonce."""
    return hmac.new(secret.encode(), f"csrf {nonce}".encode(), sha256).hexdigest()


async def read_form(request: Request, secret: str) -> dict[str, str]:
    """The fields of a form, after the checks of its origin, its size and its CSRF token.

    Raises:
        AccessError: a check failed.
    """
    _check_origin(request)
    body = await read_body(request)
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise AccessError(400, "bad_form", "the body is not a form") from None
    nonce = request.cookies.get(CSRF_COOKIE, "")
    expected = csrf_token(nonce, secret)
    if not nonce or not hmac.compare_digest(expected.encode(), fields.pop(CSRF_FIELD, "").encode()):
        raise AccessError(403, "csrf", "the form has expired or is not from this page: reload the page")
    return fields


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object in a body, after the checks of its origin, its media type and its size.

    Browsers do not send this media type to another site without asking it first.

    Raises:
        AccessError: a check failed, or it is no object.
    """
    _check_origin(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise AccessError(415, "bad_media_type", "the body takes Content-Type: application/json")
    try:
        found = orjson.loads(await read_body(request))
    except orjson.JSONDecodeError as error:
        raise AccessError(400, "bad_json", f"the body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise AccessError(400, "bad_json", "the body takes a JSON object")
    return found


async def read_body(request: Request) -> bytes:
    """The body of a request.

    Raises:
        AccessError: it is too large.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY:
            raise AccessError(413, "too_large", f"a body may have at most {_MAX_BODY:,} bytes")
    return body


def _check_origin(request: Request) -> None:
    """Check the headers with which browsers name the origin; without them the CSRF token decides.

    ``Origin: null`` passes: browsers send it with every form of a page whose Referrer-Policy is
    ``no-referrer``, as ours is.
    """
    site = request.headers.get("sec-fetch-site", "none")
    origin = request.headers.get("origin", "null")
    is_foreign = origin != "null" and urlsplit(origin).netloc != request.headers.get("host")
    if site not in _OWN_SITE or is_foreign:
        raise AccessError(403, "foreign_origin", "the form comes from another site")


Context = Callable[[Request], dict[str, Any]]

_MONTH_S: Final = 30 * 24 * 3600


def login_routes(access: Access, context: Context) -> list[BaseRoute]:
    """The routes of the login; none without a token."""
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
            return answer_form(request, "Wrong token.", 401)
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
    """The path to continue with; ``/`` for anything that a browser could read as another site."""
    is_ours = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    return wanted if is_ours and wanted.isprintable() else "/"


CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_PRIVATE: Final = "no-store"


class SecurityHeaders:
    """Adds security headers to every response, and ``no-store`` where there is no ``Cache-Control``."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("cache-control", _PRIVATE)
            await send(message)

        await self.app(scope, receive, send_with_headers)


LOGIN: Final = "/login"
VISIT: Final = "wherefrom.visit"

Refuse = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Visit:
    """The client, for templates: the CSRF token of its forms, and whether it can log out."""

    csrf: str
    can_leave: bool


class Gate:
    """Passes requests with access on to the pages, and responds to the others."""

    def __init__(self, app: ASGIApp, access: Access, refuse: Refuse) -> None:
        self.app = app
        self._access = access
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if (trace := scope.get(SCOPE_KEY)) is not None:
            trace.leave_out()  # requests to the page itself are not traced
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
        """The response instead of the page; ``None`` if the request has access."""
        if await self._access.allows(request):
            return None
        if self._access.token is None:
            raise AccessError(403, "forbidden", "the application denies access to its traces")
        if request.method in {"GET", "HEAD"} and not is_for_programs(request):
            return RedirectResponse(f"{root_of(request)}{LOGIN}?next={quote(_wanted(request))}", 303)
        raise AccessError(401, "no_token", "no token: send `Authorization: Bearer <token>` or log in")


def root_of(request: Request) -> str:
    """The path at which the application is mounted, without a slash at the end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def path_of(request: Request) -> str:
    """The path below the mount point."""
    return str(request.scope["path"]).removeprefix(root_of(request)) or "/"


def is_for_programs(request: Request, endings: tuple[str, ...] = (".json",)) -> bool:
    """Whether a program reads the response, by the path of the request."""
    path = path_of(request)
    return path.startswith(API) or path.endswith(endings)


def cookie_path(request: Request) -> str:
    """The path attribute of the cookies."""
    return root_of(request) or "/"


def _is_open(request: Request) -> bool:
    path = path_of(request)
    return path == LOGIN or path.startswith("/static/")


def _wanted(request: Request) -> str:
    query = request.url.query
    return path_of(request) + (f"?{query}" if query else "")


def _with_cookie(send: Send, name: str, value: str, request: Request) -> Send:
    """Sets the cookie with HTML pages only: other responses may be cached for all clients."""

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
