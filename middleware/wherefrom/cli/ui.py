"""``wherefrom ui``: the page, for a browser."""

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


class UICommand(Documented):
    """The command."""

    examples: Examples = (
        ("wherefrom ui --open", "the page, in your browser"),
        (
            "wherefrom ui --store sqlite:////var/lib/app/wherefrom.db --port 8600",
            "another store, another port",
        ),
        ("WHEREFROM_UI_TOKEN=... wherefrom ui --host 0.0.0.0", "for others too: they log in with the token"),
    )
    closing = (
        "In an app of your own: app.mount('/wherefrom', wherefrom.web.app(token=...)). Each page has its JSON at"
        " the same address with .json, described in /openapi.json."
    )


def ui(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes one that is free.")] = 8400,
    opens: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    store: StoreOption = None,
) -> None:
    """Show the traces on a page: what happened, what is slow, what fails, what got worse."""
    with listening(store_url(ctx, store), host, port) as (opened_store, access, listener):
        _run(opened_store, access, listener, opens=opens)


def _run(store: Store, access: Access, listener: socket.socket, *, opens: bool) -> None:
    import webbrowser

    from ..web.application import make_application

    url = url_of(listener)
    with_token = "" if access.token is None else "; log in with the token"
    remark(f"The page is at {url}{with_token}. Ctrl-C ends it.")
    if opens:
        webbrowser.open(url)  # the socket listens already: the browser waits for the first answer
    run(make_application(store, access), listener)
