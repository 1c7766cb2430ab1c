"""Where a command listens, whether others can reach it there, and answering until the end."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..exceptions import SettingsError, WherefromError
from .opening import opened

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from ..stores import Store
    from ..web.auth import Access

_BACKLOG = 128
_PATIENCE_S = 2
"""How long requests that are being answered may take when the process is ended."""


class AddressError(WherefromError):
    """An address that cannot be listened on."""


@contextmanager
def listening(url: str, host: str, port: int) -> Iterator[tuple[Store, Access, socket.socket]]:
    """The store at this URL, who may read it, and a socket for them to connect to.

    Raises:
        StoreError: there is none, or it is not one of Wherefrom's.
        SettingsError: others could connect, and there is no token.
        AddressError: the port is taken, or the address is none of this machine's.
    """
    from ..settings import Settings
    from ..web.auth import LOOPBACK, Access

    token = Settings().ui_token
    access = Access(token.get_secret_value()) if token else Access(hosts=LOOPBACK | {host.lower()})
    with opened(url) as store, listen(host, port, has_token=token is not None) as listener:
        yield store, access, listener


def listen(host: str, port: int, *, has_token: bool) -> socket.socket:
    """A socket that listens; beyond this machine only where a token is asked of who connects.

    Raises:
        SettingsError: others could connect, and there is no token.
        AddressError: the port is taken, or the address is none of this machine's.
    """
    if not has_token and not _is_loopback(host):
        raise SettingsError(
            f"on {host or 'every address'} others could read the traces: set WHEREFROM_UI_TOKEN,"
            " or listen on 127.0.0.1"
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AddressError(f"cannot listen on {host}, port {port}: {reason.lower()}") from error


def run(app: ASGIApp, listener: socket.socket) -> None:
    """Answer requests until the process is told to end."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", server_header=False, timeout_graceful_shutdown=_PATIENCE_S
    )
    uvicorn.Server(config).run(sockets=[listener])


def url_of(listener: socket.socket) -> str:
    """The address to open."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
