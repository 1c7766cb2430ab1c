"""``wherefrom.web.app``: the page as an ASGI application, to mount in another or to serve by itself."""

from __future__ import annotations

from starlette.types import ASGIApp

from ..exceptions import SettingsError, StoreError
from ..settings import Settings
from ..stores import Store, open_store
from .application import make_application
from .auth import Access, Rule


def app(store: Store | str | None = None, *, token: str | None = None, allow: Rule | None = None) -> ASGIApp:
    """The page over a store, for ``app.mount("/wherefrom", wherefrom.web.app(...))``.

    ``store`` is a store or its URL, by default that of the settings. Whoever logs in with ``token``, by
    default the setting ``ui_token``, may see everything, and whoever ``allow(request)`` says yes to: a
    function, or a coroutine function, of Starlette's ``Request``, where the app's own middleware has left
    who is asking.

    Raises:
        SettingsError: there is neither a token nor a rule.
        StoreError: there is no such store.
    """
    settings = Settings()
    token = token or (settings.ui_token.get_secret_value() if settings.ui_token else None)
    if token is None and allow is None:
        raise SettingsError(
            "the page shows what users sent: mount it with wherefrom.web.app(token=...), set"
            " WHEREFROM_UI_TOKEN, or say who may see it with wherefrom.web.app(allow=...)"
        )
    return make_application(open_configured(store, settings), Access(token, allow))


def open_configured(store: Store | str | None, settings: Settings) -> Store:
    """The store that is given, or that the settings name; its file is opened when it is first read.

    Raises:
        StoreError: there is none.
    """
    if store is not None and not isinstance(store, str):
        return store
    url = store or settings.store
    if url == "none":
        raise StoreError("there is nothing to show: WHEREFROM_STORE is none")
    return open_store(url)
