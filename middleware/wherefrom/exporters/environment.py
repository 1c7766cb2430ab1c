"""The variables of OpenTelemetry that say how to export and what the process is.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/ — a variable for traces alone
(``OTEL_EXPORTER_OTLP_TRACES_…``) wins over the one for all signals (``OTEL_EXPORTER_OTLP_…``).
``…_TIMEOUT`` is not read: the specification counts it in milliseconds, OpenTelemetry's Python in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from ..exceptions import SettingsError
from .endpoint import DEFAULT_PATH, Endpoint

if TYPE_CHECKING:
    from ssl import SSLContext

EncodingName = Literal["json", "protobuf"]

_PROTOCOLS: Final[dict[str, EncodingName]] = {"http/json": "json", "http/protobuf": "protobuf"}


def resource_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """``OTEL_RESOURCE_ATTRIBUTES``, and ``OTEL_SERVICE_NAME`` which wins over its ``service.name``."""
    attributes = read_pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    if name := environ.get("OTEL_SERVICE_NAME", "").strip():
        attributes["service.name"] = name
    return attributes


def variable(name: str, environ: Mapping[str, str]) -> str:
    """``OTEL_EXPORTER_OTLP_TRACES_{name}``, or ``OTEL_EXPORTER_OTLP_{name}``; empty when there is neither."""
    for_traces = environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "").strip()
    return for_traces or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()


def configured_endpoint(environ: Mapping[str, str]) -> Endpoint | None:
    """The URL for traces is taken as it is; the one for all signals is what ``v1/traces`` is put under."""
    if url := environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip():
        return Endpoint.parse(url, complete=False)
    if url := environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip():
        parts = urlsplit(url)
        return Endpoint.parse(urlunsplit(parts._replace(path=parts.path.rstrip("/") + DEFAULT_PATH)))
    return None


def configured_encoding(environ: Mapping[str, str], *, strict: bool) -> EncodingName:
    """What ``…_PROTOCOL`` says; ``strict``: one that we do not speak is an error.

    Raises:
        SettingsError: it says ``grpc``, or nothing known.
    """
    protocol = variable("PROTOCOL", environ)
    if strict and protocol and protocol not in _PROTOCOLS:
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r} cannot be used: it takes http/json or http/protobuf"
        )
    return _PROTOCOLS.get(protocol, "json")


def read_pairs(text: str) -> dict[str, str]:
    """``key=value,key=value`` with values percent-encoded, as in W3C Baggage."""
    found = (item.partition("=") for item in text.split(","))
    return {
        unquote(key.strip()): unquote(value.strip()) for key, sign, value in found if sign and key.strip()
    }


def ssl_context(environ: Mapping[str, str]) -> SSLContext | None:
    """TLS with the certificates that the environment names; ``None`` for the system's."""
    trusted = variable("CERTIFICATE", environ)
    certificate = variable("CLIENT_CERTIFICATE", environ)
    if not trusted and not certificate:
        return None
    import ssl

    try:
        context = ssl.create_default_context(cafile=trusted or None)
        if certificate:
            context.load_cert_chain(certificate, variable("CLIENT_KEY", environ) or None)
    except OSError as error:
        raise SettingsError(f"a certificate of OTEL_EXPORTER_OTLP cannot be used: {error}") from error
    return context
