"""The forms of the setting ``export`` that mean OTLP: ``otlp:`` and ``otlp+http(s)://…``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..exceptions import SettingsError
from .endpoint import DEFAULT_URL, Endpoint
from .environment import (
    EncodingName,
    configured_encoding,
    configured_endpoint,
    read_pairs,
    ssl_context,
    variable,
)
from .otlp import OTLPExporter

_TAKES: Final = "otlp:, otlp+http://host:4318 or otlp+https://host:4318, and ?encoding=json or protobuf"


def open_otlp(target: str, environ: Mapping[str, str] = os.environ) -> OTLPExporter:
    """The exporter of ``otlp:`` (where the environment says) or of ``otlp+http(s)://…``.

    Headers in the environment are sent to a URL given here too, unless the environment names another
    host for them: a key must not reach somebody it was not meant for.

    Raises:
        SettingsError: ``target`` or a variable cannot be used.
    """
    scheme, _, rest = target.partition("+")
    encoding = configured_encoding(environ, strict=target == "otlp:")
    if target == "otlp:":
        endpoint, meant = configured_endpoint(environ) or Endpoint.parse(DEFAULT_URL), True
    elif scheme == "otlp" and rest.startswith(("http://", "https://")):
        Endpoint.parse(rest)
        url, named = _without_encoding(rest)
        endpoint, encoding = Endpoint.parse(url), named or encoding
        meant = _is_where_headers_go(endpoint, environ)
    else:
        shown = target.partition(":")[0]
        raise SettingsError(f"WHEREFROM_EXPORT='{shown}:…' cannot be used: it takes {_TAKES}")
    return OTLPExporter(
        endpoint,
        headers=read_pairs(variable("HEADERS", environ)) if meant else {},
        encoding=encoding,
        gzip=variable("COMPRESSION", environ) != "none",
        ssl_context=ssl_context(environ),
        environ=environ,
    )


def _is_where_headers_go(endpoint: Endpoint, environ: Mapping[str, str]) -> bool:
    try:
        configured = configured_endpoint(environ)
    except SettingsError:  # such as gRPC's localhost:4317: somewhere else
        return False
    return configured is None or configured.origin == endpoint.origin


def _without_encoding(url: str) -> tuple[str, EncodingName | None]:
    """The URL without its ``encoding=…``, and what that says."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    names = [value for key, value in query if key == "encoding"]
    if not names:
        return url, None
    if names[-1] not in {"json", "protobuf"}:
        raise SettingsError(f"WHEREFROM_EXPORT=…?encoding={names[-1]} cannot be used: it takes {_TAKES}")
    rest = urlencode([(key, value) for key, value in query if key != "encoding"])
    encoding: EncodingName = "protobuf" if names[-1] == "protobuf" else "json"
    return urlunsplit(parts._replace(query=rest)), encoding
