"""The forms of the setting ``export`` that mean an MLflow server, and the variables of MLflow's client.

https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from ...exceptions import SettingsError
from ..endpoint import Endpoint
from .api import server_endpoint
from .exporter import MLflowExporter

if TYPE_CHECKING:
    from ssl import SSLContext

_URI: Final = "MLFLOW_TRACKING_URI"
_TAKES: Final = "mlflow, mlflow+http://host:5000 or mlflow+https://host:5000, and ?experiment=name"
_TRUE: Final = frozenset({"true", "1"})


def open_mlflow(target: str, environ: Mapping[str, str] = os.environ) -> MLflowExporter:
    """The exporter of ``mlflow`` (where the environment says) or of ``mlflow+http(s)://…?experiment=…``.

    The experiment is the one in the target, then ``MLFLOW_EXPERIMENT_NAME``, then ``MLFLOW_EXPERIMENT_ID``,
    then each trace's own.

    Raises:
        SettingsError: ``target`` or a variable cannot be used.
    """
    url, named = _server_and_experiment(target, environ)
    name = named or environ.get("MLFLOW_EXPERIMENT_NAME") or None
    experiment_id = None if name else environ.get("MLFLOW_EXPERIMENT_ID") or None
    return MLflowExporter(
        server_endpoint(url), experiment=name, experiment_id=experiment_id, **access(url, environ)
    )


def access(url: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """How to speak to a server, as MLflow's variables say: options of ``MLflowExporter``.

    Credentials are for the server of ``MLFLOW_TRACKING_URI``, where that is set to one: a password must not
    reach somebody it was not meant for.

    Raises:
        SettingsError: a variable cannot be used.
    """
    endpoint = server_endpoint(url)
    headers = _credentials(environ) if _is_meant(endpoint, environ) else {}
    if workspace := environ.get("MLFLOW_WORKSPACE"):
        headers["x-mlflow-workspace"] = workspace
    options: dict[str, Any] = {"headers": headers, "ssl_context": _ssl_context(environ), "environ": environ}
    if timeout := environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT"):
        options["timeout"] = _seconds(timeout)
    return options


def _server_and_experiment(target: str, environ: Mapping[str, str]) -> tuple[str, str | None]:
    scheme, _, url = target.partition("+")
    if target in {"mlflow", "mlflow:"}:
        url = environ.get(_URI, "").strip()
        if not url.startswith(("http://", "https://")):
            shown = "".join(url.partition(":")[:2])  # the rest may hold a password
            said = f"is {shown!r}" if url else "is not set"
            raise SettingsError(f"WHEREFROM_EXPORT=mlflow takes an http server in {_URI}, which {said}")
    elif scheme != "mlflow" or not url.startswith(("http://", "https://")):
        shown = target.partition(":")[0]
        raise SettingsError(f"WHEREFROM_EXPORT='{shown}:…' cannot be used: it takes {_TAKES}")
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    if unknown := [key for key, value in pairs if key != "experiment" or not value]:
        raise SettingsError(f"WHEREFROM_EXPORT=…?{unknown[0]} cannot be used: it takes {_TAKES}")
    return urlunsplit(parts._replace(query="")), dict(pairs).get("experiment")


def _credentials(environ: Mapping[str, str]) -> dict[str, str]:
    user, password = environ.get("MLFLOW_TRACKING_USERNAME"), environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        return {"authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}
    if token := environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"authorization": f"Bearer {token}"}
    return {}


def _is_meant(endpoint: Endpoint, environ: Mapping[str, str]) -> bool:
    """Whether the credentials in the environment are for this server; those in its URL come first anyway."""
    if endpoint.authorization:
        return False
    try:
        return server_endpoint(environ.get(_URI, "")).origin == endpoint.origin
    except SettingsError:
        return True


def _ssl_context(environ: Mapping[str, str]) -> SSLContext | None:
    insecure = environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in _TRUE
    trusted = environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    certificate = environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    if not (insecure or trusted or certificate):
        return None
    import ssl

    try:
        context = ssl.create_default_context(cafile=trusted or None)
        if insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate:
            context.load_cert_chain(certificate)
    except OSError as error:
        raise SettingsError(f"a certificate of MLFLOW_TRACKING cannot be used: {error}") from error
    return context


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e6:
        raise SettingsError(f"MLFLOW_HTTP_REQUEST_TIMEOUT={text!r} cannot be used: it takes seconds")
    return seconds
