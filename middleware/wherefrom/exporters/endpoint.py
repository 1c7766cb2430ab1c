"""Where an exporter sends: a URL, headers and certificates, given directly or by OpenTelemetry's variables.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/ — a variable for traces alone
(``OTEL_EXPORTER_OTLP_TRACES_…``) wins over the one for all signals (``OTEL_EXPORTER_OTLP_…``).
``…_TIMEOUT`` is not read: the specification counts it in milliseconds, OpenTelemetry's Python in seconds.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from ..exceptions import SettingsError
from ..process import logger

if TYPE_CHECKING:
    from ssl import SSLContext


DEFAULT_PATH: Final = "/v1/traces"
DEFAULT_URL: Final = "http://localhost:4318"

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # section 5.5
_TARGET: Final = re.compile(r"[!-~]+")
_PORTS: Final = {"http": 80, "https": 443}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, with user and password."""

    url: str
    credentials: tuple[bytes, bytes] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A parsed URL. ``url`` is for logs and error messages: it has neither credentials nor query."""

    scheme: str
    host: str
    port: int
    url: str
    target: str = field(repr=False)
    authorization: str | None = field(default=None, repr=False)

    @property
    def bracketed_host(self) -> str:
        """The host as written in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def authority(self) -> str:
        """The host, and the port unless it is the default of the scheme."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return self.bracketed_host + port

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port."""
        return self.scheme, self.host, self.port

    def proxy(self, environ: Mapping[str, str]) -> Proxy | None:
        """The proxy from ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``; none for the loopback."""
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
        """Parse a URL; ``complete`` appends ``/v1/traces`` if it has no path.

        ``called`` and ``example`` describe it in the error message.

        Raises:
            SettingsError: it is not an ``http`` or ``https`` URL.
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
                f" or https://{example}, with optional credentials and path"
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
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or _PORTS.get(parts.scheme, 80)
    except ValueError:
        raise SettingsError(
            f"the proxy {_redacted(url)!r} cannot be used: it takes http://host:port,"
            " with optional credentials"
        ) from None
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    credentials = None
    if parts.username is not None:
        credentials = unquote(parts.username).encode(), unquote(parts.password or "").encode()
    return Proxy(f"{parts.scheme}://{host}:{port}/", credentials)


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Validate headers; the names become lower case.

    Raises:
        SettingsError: a name or value is invalid; the message has the name and never the value.
    """
    checked = {}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise SettingsError(
                f"{name!r} cannot be a header of OTLP requests: it is not a valid header name"
            )
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


def resource_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """``OTEL_RESOURCE_ATTRIBUTES``, and ``OTEL_SERVICE_NAME`` which wins over its ``service.name``."""
    attributes = read_pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    if name := environ.get("OTEL_SERVICE_NAME", "").strip():
        attributes["service.name"] = name
    return attributes


def variable(name: str, environ: Mapping[str, str]) -> str:
    """``OTEL_EXPORTER_OTLP_TRACES_{name}`` or ``OTEL_EXPORTER_OTLP_{name}``; empty if neither is set."""
    for_traces = environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "").strip()
    return for_traces or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()


def configured_endpoint(environ: Mapping[str, str]) -> Endpoint | None:
    """The URL for traces as it is, or the one for all signals with ``/v1/traces`` appended."""
    if url := environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip():
        return Endpoint.parse(url, complete=False)
    if url := environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip():
        try:
            parts = urlsplit(url)
        except ValueError:
            return Endpoint.parse(url)  # which says what is wrong with it
        return Endpoint.parse(urlunsplit(parts._replace(path=parts.path.rstrip("/") + DEFAULT_PATH)))
    return None


def check_protocol(environ: Mapping[str, str], *, strict: bool) -> None:
    """Check ``…_PROTOCOL``; ``strict``: the environment also configures the endpoint.

    ``http/json`` gets protobuf and a warning: it is sent to the same URL, and every OTLP/HTTP collector must
    read both. ``grpc`` is another server on another port.

    Raises:
        SettingsError: ``strict``, and the protocol is ``grpc`` or unknown.
    """
    protocol = variable("PROTOCOL", environ)
    if protocol == "http/json":
        logger.warning("OTEL_EXPORTER_OTLP_PROTOCOL='http/json' is not supported: sending http/protobuf")
    elif strict and protocol not in {"", "http/protobuf"}:
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r} cannot be used: it takes http/protobuf"
        )


def read_pairs(text: str) -> dict[str, str]:
    """Parse ``key=value,key=value`` with percent-encoded values, as in W3C Baggage."""
    found = (item.partition("=") for item in text.split(","))
    return {
        unquote(key.strip()): unquote(value.strip()) for key, sign, value in found if sign and key.strip()
    }


def tls_context(
    prefix: str, *, trusted: str | None, certificate: str | None, key: str | None = None, verify: bool = True
) -> SSLContext | None:
    """A TLS context with these files; ``None`` where the system's defaults do.

    ``prefix`` is that of the variables which name the files, for the error.

    Raises:
        SettingsError: a file cannot be read as a certificate.
    """
    if verify and not trusted and not certificate:
        return None
    import ssl  # takes 10 ms, which an exporter over plain HTTP saves

    try:
        context = ssl.create_default_context(cafile=trusted or None)
        if not verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate:
            context.load_cert_chain(certificate, key or None)
    except OSError as error:
        raise SettingsError(f"a certificate of {prefix} cannot be used: {error}") from error
    return context
