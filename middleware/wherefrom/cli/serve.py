"""``wherefrom ui`` and ``wherefrom serve``: the traces of a store over HTTP."""

from __future__ import annotations

import gc
import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..exceptions import SettingsError, WherefromError
from .options import StoreOption, examples, opened
from .terminal import remark

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from ..alerts.alerting import Alerting
    from ..stores import Store
    from ..web.auth import Access

UI_HELP: Final = examples(
    ("wherefrom ui --open", "open the page in your browser"),
    ("wherefrom ui --store sqlite:////var/lib/app/wherefrom.db --port 8600", "another store, another port"),
    (
        "WHEREFROM_UI_TOKEN=... wherefrom ui --host 0.0.0.0",
        "reachable from other machines; they log in with the token",
    ),
    closing="To mount the page in your own app: app.mount('/wherefrom', wherefrom.web.app(token=...))."
    " Every page is also available as JSON at the same address with .json, described in /openapi.json.",
)
SERVE_HELP: Final = examples(
    ("wherefrom serve", "then in Python: mlflow.set_tracking_uri('http://127.0.0.1:8500')"),
    (
        "wherefrom serve --store sqlite:////var/lib/app/wherefrom.db --port 8600",
        "another store, another port",
    ),
    (
        "WHEREFROM_UI_TOKEN=... wherefrom serve --host 0.0.0.0",
        "reachable from other machines; clients set MLFLOW_TRACKING_TOKEN to the token",
    ),
    closing="MlflowClient.search_traces, mlflow.search_traces, get_trace and set_experiment work unchanged,"
    " and tags can be set and deleted. Traces cannot be added or deleted.",
)
_BACKLOG: Final = 128  # connections that wait for ``accept``
_GRACE_S: Final = 2
"""How long open requests may take when the process ends."""

HostOption = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")]
PortOption = Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 picks a free one.")]


class AddressError(WherefromError):
    """An address that cannot be listened on."""


def ui(
    ctx: typer.Context,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8400,
    opens: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    store: StoreOption = None,
) -> None:
    """Show traces on a page: recent requests, latencies, errors and comparisons."""
    import webbrowser

    from ..web.application import make_application

    with (
        _listening(ctx, store, host, port) as (used, access, listener),
        _alerting(used, _url_of(listener)) as alerts,
    ):
        url = _url_of(listener)
        with_token = "" if access.token is None else "; log in with the token"
        remark(f"The page is at {url}{with_token}. Stop with Ctrl-C.")
        if opens:
            webbrowser.open(
                url
            )  # the socket listens already, so the browser's request waits until the app runs
        run(make_application(used, access, alerts=alerts), listener)


def serve(
    ctx: typer.Context,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8500,
    store: StoreOption = None,
) -> None:
    """Serve traces to MLflow's Python client."""
    from ..mlflow.serve import make_application

    with _listening(ctx, store, host, port) as (used, access, listener), _alerting(used, None):
        remark(f"mlflow.set_tracking_uri({_url_of(listener)!r}) reads these traces. Stop with Ctrl-C.")
        run(make_application(used, access), listener)


@contextmanager
def _listening(
    ctx: typer.Context, store: str | None, host: str, port: int
) -> Iterator[tuple[Store, Access, socket.socket]]:
    """The store, the access to it, and a listening socket; for other machines only with a token.

    Raises:
        StoreError: there is no such store.
        SettingsError: other machines could connect, and there is no token.
        AddressError: the port is taken, or the address does not belong to this machine.
    """
    from ..settings import Settings
    from ..web.auth import LOOPBACK, Access

    import_module("uvicorn")  # imported here: a missing extra is reported before an address is printed
    token = Settings().ui_token
    access = Access(token.get_secret_value()) if token else Access(hosts=LOOPBACK | {host.lower()})
    if token is None and not _is_loopback(host):
        raise SettingsError(
            f"other machines could read the traces on {host or 'every address'}: set WHEREFROM_UI_TOKEN,"
            " or listen on 127.0.0.1"
        )
    with opened(ctx, store) as used:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise AddressError(f"cannot listen on {host}, port {port}: {reason.lower()}") from error
        with listener:
            yield used, access, listener


@contextmanager
def _alerting(store: Store, page: str | None) -> Iterator[Alerting | None]:
    """The alerts of the settings, evaluated until the block ends; ``page`` is where their links lead.

    Raises:
        SettingsError: the file of rules cannot be used.
    """
    from ..settings import Settings

    path = Settings().alerts
    if path is None:
        yield None
        return
    from ..alerts.alerting import Alerting, alerting

    with alerting(alerts := Alerting(store, path, page=page)):
        yield alerts


def run(app: ASGIApp, listener: socket.socket) -> None:
    """Serve requests until the process is stopped."""
    import uvicorn

    # What is loaded now stays. Garbage collection would look at all of it again for each large page.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=_GRACE_S)
    uvicorn.Server(config).run(sockets=[listener])


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
