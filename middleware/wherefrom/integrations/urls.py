"""URLs that may be kept: without what gives access."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

__all__ = ["REDACTED", "public_url"]

REDACTED: Final = "REDACTED"
_MAX_URL: Final = 2048

_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
# Matched against the key in lower case without its separators: ``X-Amz-Signature`` is ``xamzsignature``.
_ANYWHERE: Final = re.compile(
    r"token|secret|passw|pwd|passphrase|credential|signature|jwt|assertion|bearer|authoriz|session|cookie"
    r"|passcode|verifier"
)
_ENDING: Final = re.compile(r"(?:key|keyid|auth)$")
_WHOLE: Final = frozenset({"sig", "code", "otp", "pin", "sid", "pass"})


def public_url(scheme: str, authority: str, target: str) -> str:
    """A URL for ``url.full``: the values of query keys that look like credentials are ``REDACTED``.

    ``authority`` is the host and port without userinfo, ``target`` the path and query. The fragment, which
    is never sent, has no place in it.
    """
    path, mark, query = target.partition("?")
    shown = "&".join(_public_pair(pair) for pair in query.split("&"))
    return f"{scheme}://{authority}{path}{mark}{shown}"[:_MAX_URL]


def _public_pair(pair: str) -> str:
    key, equals, value = pair.partition("=")
    return f"{key}={REDACTED}" if equals and value and _is_credential(key) else pair


def _is_credential(key: str) -> bool:
    name = _SEPARATORS.sub("", unquote_plus(key).lower())
    return name in _WHOLE or bool(_ANYWHERE.search(name) or _ENDING.search(name))
