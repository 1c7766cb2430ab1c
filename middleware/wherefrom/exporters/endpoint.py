"""Where traces are sent: a URL and the headers that go with it."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from ..exceptions import SettingsError

DEFAULT_PATH: Final = "/v1/traces"
DEFAULT_URL: Final = "http://localhost:4318"

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # section 5.5
_TARGET: Final = re.compile(r"[!-~]+")
_PORTS: Final = {"http": 80, "https": 443}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, and the user and password it is given."""

    url: str
    credentials: tuple[bytes, bytes] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL taken apart. ``url`` is for people and logs: it has neither credentials nor query."""

    scheme: str
    host: str
    port: int
    url: str
    target: str = field(repr=False)
    authorization: str | None = field(default=None, repr=False)

    @property
    def bracketed_host(self) -> str:
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def authority(self) -> str:
        """The host and, if it is not the scheme's own, the port."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return self.bracketed_host + port

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return self.scheme, self.host, self.port

    def proxy(self, environ: Mapping[str, str]) -> Proxy | None:
        """The proxy that ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY`` say; none for the loopback."""
        name = f"{self.scheme}_proxy"
        # In a CGI process HTTP_PROXY is what a client sent as "Proxy:" (httpoxy).
        upper = "" if name == "http_proxy" and "REQUEST_METHOD" in environ else environ.get(name.upper(), "")
        url = environ.get(name) or upper
        excluded = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        if not url or self.host in _LOOPBACK:
            return None
        if proxy_bypass_environment(f"{self.host}:{self.port}", {"no": excluded}):
            return None
        return _proxy(url)

    @classmethod
    def parse(
        cls, url: str, *, complete: bool = True, called: str = "the OTLP endpoint", example: str = "host:4318"
    ) -> Endpoint:
        """Read a URL; ``complete`` appends ``/v1/traces`` when it has no path of its own.

        ``called`` and ``example`` say what it is in the sentence about one that cannot be used.

        Raises:
            SettingsError: it is no URL of ``http`` or ``https``.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            usable = parts.scheme in _PORTS and bool(host) and not parts.fragment
        except ValueError:
            usable = False
        if not usable or not host:
            raise SettingsError(
                f"{called} {_redacted(url)!r} cannot be used: it takes http://{example}"
                f" or https://{example}, with credentials and a path if need be"
            )
        path = parts.path
        if path in {"", "/"}:
            path = DEFAULT_PATH if complete else "/"
        target = path + (f"?{parts.query}" if parts.query else "")
        if not _TARGET.fullmatch(target):
            raise SettingsError(f"{called} {_redacted(url)!r} cannot be used: its path is not ASCII")
        shown = f"[{host}]" if ":" in host else host
        return cls(
            parts.scheme,
            host,
            port or _PORTS[parts.scheme],
            f"{parts.scheme}://{shown}{f':{port}' if port else ''}{path}",
            target,
            _basic(parts.username, parts.password),
        )


def _proxy(url: str) -> Proxy:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    credentials = None
    if parts.username is not None:
        credentials = unquote(parts.username).encode(), unquote(parts.password or "").encode()
    return Proxy(f"{parts.scheme}://{host}:{parts.port or _PORTS.get(parts.scheme, 80)}/", credentials)


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as they can be sent, by lower-case name.

    Raises:
        SettingsError: a name or value is none; the message names the header and never the value.
    """
    checked = {}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise SettingsError(f"{name!r} cannot be a header of OTLP requests: it is no header name")
        if not _VALUE.fullmatch(value):
            raise SettingsError(f"the value of the header {name!r} of OTLP requests cannot be sent")
        checked[name.lower()] = value.strip()
    return checked


def _basic(user: str | None, password: str | None) -> str | None:
    """HTTP Basic authentication (RFC 7617) of the credentials in a URL."""
    if user is None:
        return None
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return "Basic " + b64encode(pair.encode()).decode()


def _redacted(url: str) -> str:
    return re.sub(r"//[^/]*@", "//***@", url.partition("?")[0])
