"""Forms that change something: read within bounds, and only when they come from a page of ours."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request

from .failures import AccessError

CSRF_COOKIE: Final = "wherefrom_csrf"
CSRF_FIELD: Final = "csrf"

_MAX_BODY: Final = 1_000_000
_MAX_FIELDS: Final = 20
_OWN_SITE: Final = frozenset({"same-origin", "none"})


def new_nonce() -> str:
    """What the cookie holds."""
    return secrets.token_urlsafe(24)


def csrf_token(nonce: str, secret: str) -> str:
    """What the field of a form holds for the cookie's nonce."""
    return hmac.new(secret.encode(), f"csrf {nonce}".encode(), sha256).hexdigest()


async def read_form(request: Request, secret: str) -> dict[str, str]:
    """The fields of a form that a page of ours sent.

    Raises:
        AccessError: it came from elsewhere, or is larger than any form of ours.
    """
    _check_origin(request)
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY:
            raise AccessError(413, "too_large", f"a form has at most {_MAX_BODY:,} bytes")
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise AccessError(400, "bad_form", "this is no form of this page") from None
    nonce = request.cookies.get(CSRF_COOKIE, "")
    expected = csrf_token(nonce, secret)
    if not nonce or not hmac.compare_digest(expected.encode(), fields.pop(CSRF_FIELD, "").encode()):
        raise AccessError(403, "csrf", "the form is too old, or not from this page: load the page again")
    return fields


def _check_origin(request: Request) -> None:
    """Browsers say where a form comes from; where they do not, the token of the form alone decides.

    ``Origin: null`` says nothing: it is what they send with every form of a page whose Referrer-Policy is
    ``no-referrer``, as ours is.
    """
    site = request.headers.get("sec-fetch-site", "none")
    origin = request.headers.get("origin", "null")
    is_foreign = origin != "null" and urlsplit(origin).netloc != request.headers.get("host")
    if site not in _OWN_SITE or is_foreign:
        raise AccessError(403, "foreign_origin", "the form was sent from another site")
