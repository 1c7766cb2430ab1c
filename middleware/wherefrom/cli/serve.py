"""``wherefrom serve``: the traces of a store, for MLflow's Python client."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated

import typer

from .help import Documented, Examples
from .listening import listening, run, url_of
from .opening import StoreOption, store_url
from .terminal import remark

if TYPE_CHECKING:
    from ..stores import Store
    from ..web.auth import Access


class ServeCommand(Documented):
    """The command."""

    examples: Examples = (
        ("wherefrom serve", "then in Python: mlflow.set_tracking_uri('http://127.0.0.1:8500')"),
        (
            "wherefrom serve --store sqlite:////var/lib/app/wherefrom.db --port 8600",
            "another store, another port",
        ),
        (
            "WHEREFROM_UI_TOKEN=... wherefrom serve --host 0.0.0.0",
            "for others too: MLFLOW_TRACKING_TOKEN has the same token on their side",
        ),
    )
    closing = (
        "MlflowClient.search_traces, mlflow.search_traces, get_trace and set_experiment work as they are, and"
        " tags can be set and deleted. Traces are neither taken nor deleted here."
    )


def serve(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes one that is free.")] = 8500,
    store: StoreOption = None,
) -> None:
    """Let MLflow's Python client read the traces."""
    with listening(store_url(ctx, store), host, port) as (opened_store, access, listener):
        _run(opened_store, access, listener)


def _run(store: Store, access: Access, listener: socket.socket) -> None:
    from ..mlflow.serve.application import make_application

    remark(f"mlflow.set_tracking_uri({url_of(listener)!r}) reads these traces. Ctrl-C ends it.")
    run(make_application(store, access), listener)
