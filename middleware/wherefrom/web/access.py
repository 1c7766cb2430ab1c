"""Who may see the page: who has the token, whom the app's own rule lets in, or anyone on this machine."""

from __future__ import annotations

import hmac
import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from starlette.requests import Request

from .failures import AccessError
from .forms import csrf_token

Rule = Callable[[Request], bool | Awaitable[bool]]
"""Says whether a request may be answered; may be a coroutine function."""

SESSION_COOKIE: Final = "wherefrom_session"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::[0-9]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in: with ``token``, or by ``rule``; with neither, everybody who asks for one of ``hosts``.

    ``hosts`` are the names by which this machine may be asked, where only it shall ask: a foreign page
    whose name was made to lead here (DNS rebinding) is told nothing. ``None``: by any name.
    """

    token: str | None = None
    rule: Rule | None = None
    hosts: frozenset[str] | None = None

    def check_host(self, request: Request) -> None:
        """Nothing, if the request asks for a host that we are.

        Raises:
            AccessError: it does not.
        """
        if self.hosts is not None and _host(request) not in self.hosts:
            raise AccessError(403, "foreign_host", "this page answers to this machine alone")

    async def allows(self, request: Request) -> bool:
        """Whether the request may be answered."""
        if self.token is None and self.rule is None:
            return True
        if self.token is not None and self._carries_token(request):
            return True
        if self.rule is None:
            return False
        answer = self.rule(request)
        return bool(await answer if inspect.isawaitable(answer) else answer)

    def is_token(self, text: str) -> bool:
        """Whether this is the token; takes as long for a wrong one as for the right one."""
        return self.token is not None and hmac.compare_digest(text.encode(), self.token.encode())

    @property
    def session(self) -> str:
        """What the cookie holds of who knows the token: not the token itself."""
        return hmac.new(self.secret.encode(), b"session", sha256).hexdigest()

    @property
    def secret(self) -> str:
        """What forms are signed with."""
        return self.token or ""

    def csrf(self, nonce: str) -> str:
        """What a form holds for the nonce of its cookie."""
        return csrf_token(nonce, self.secret)

    def _carries_token(self, request: Request) -> bool:
        cookie = request.cookies.get(SESSION_COOKIE, "")
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        has_cookie = hmac.compare_digest(cookie.encode(), self.session.encode())
        return has_cookie or (scheme.lower() == "bearer" and self.is_token(credentials.strip()))


def _host(request: Request) -> str | None:
    found = _HOST.fullmatch(request.headers.get("host", ""))
    return found[1].strip("[]").lower() if found else None
