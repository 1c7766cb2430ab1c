"""Who is answered: whoever sends the token as MLflow's client does, or, without one, this machine alone."""

from __future__ import annotations

import binascii
from base64 import b64decode

from starlette.requests import Request

from ..access import Access
from ..failures import AccessError
from .errors import FORBIDDEN, INVALID, UNAUTHENTICATED, RestError


def check_access(request: Request, access: Access) -> None:
    """Nothing, if the request may be answered.

    The token is a bearer token or the password of basic authentication: what MLflow's client sends where
    ``MLFLOW_TRACKING_TOKEN``, or ``_USERNAME`` and ``_PASSWORD``, are set.

    Raises:
        RestError: it may not.
    """
    try:
        access.check_host(request)
    except AccessError as error:
        raise RestError(
            FORBIDDEN, "without WHEREFROM_UI_TOKEN only what is asked of 127.0.0.1 or localhost is answered"
        ) from error
    if access.token is not None and not access.is_token(_sent_token(request)):
        raise RestError(
            UNAUTHENTICATED,
            "a token is needed here: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_PASSWORD with any"
            " MLFLOW_TRACKING_USERNAME, holds what WHEREFROM_UI_TOKEN does on the server",
        )


def check_media_type(request: Request) -> None:
    """Nothing, if the body is said to be JSON: a page from elsewhere cannot send that without asking first.

    Raises:
        RestError: it is something else.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise RestError(INVALID, "the body takes Content-Type: application/json")


def _sent_token(request: Request) -> str:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
