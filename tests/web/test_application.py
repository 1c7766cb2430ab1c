from __future__ import annotations

import importlib
import sys
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import wherefrom.web
from wherefrom import MemorySink, TraceMiddleware
from wherefrom.exceptions import MissingExtraError, SettingsError, StoreError
from wherefrom.stores import Store, open_store
from wherefrom.web.application import make_application
from wherefrom.web.auth import LOOPBACK, Access

from .conftest import asking, get, read
from .samples import make_traces


async def test_the_home_page_is_that_of_the_traces(client: httpx.AsyncClient) -> None:
    """The address alone leads to the newest traces."""
    answer = await client.get("/")
    assert answer.status_code in {302, 307}
    assert answer.headers["location"] == "/traces"


async def test_every_answer_carries_the_headers(client: httpx.AsyncClient) -> None:
    """Pages, files, JSON and errors alike forbid scripts of others, frames and referrers."""
    for path in ("/traces", "/traces.json", "/static/wherefrom.css", "/nowhere", "/traces?size=x"):
        headers = (await client.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == (
            "public, max-age=31536000, immutable" if "static" in path else "no-store"
        )


async def test_errors_are_pages_and_in_the_twin_json(client: httpx.AsyncClient) -> None:
    """Both have the same message, and all JSON errors have the same form."""
    asked = {"filter": "status = "}
    page, twin = await client.get("/traces", params=asked), await client.get("/traces.json", params=asked)
    assert page.status_code == twin.status_code == 400
    assert twin.json()["error"] == "bad_filter"
    assert twin.json()["message"] in read(page.text).text
    for path, status, error in (("/no.json", 404, "not_found"), ("/traces.json", 405, "method_not_allowed")):
        answer = await (client.get(path) if status == 404 else client.post(path))
        assert answer.status_code == status
        assert answer.json().keys() == {"error", "message", "suggestions"}
        assert answer.json()["error"] == error


async def test_a_store_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    """What is no store is a sentence, not a stack trace."""
    (tmp_path / "other.db").write_text("this is no database, whatever it is called")
    async with asking(make_application(open_store(f"sqlite:///{tmp_path}/other.db"), Access())) as client:
        answer = await client.get("/traces")
        assert answer.status_code == 503
        assert "other.db" in read(answer.text).one("main").text
        assert (await client.get("/traces.json")).json()["error"] == "store_unreadable"


async def test_a_bug_is_said_to_be_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is shown; the log of the server has it."""
    application = make_application(store, Access())
    monkeypatch.setattr(store, "snapshot", lambda **_: 1 / 0)
    transport = httpx.ASGITransport(application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/traces.json")
    assert answer.status_code == 500
    assert answer.json()["error"] == "bug"
    assert "ZeroDivision" not in answer.text


async def test_mounted_below_a_prefix_every_address_has_it(store: Store) -> None:
    """Links, files and redirects stay within the mount."""
    store.write(make_traces(3))
    app = Starlette(routes=[Mount("/ops/wherefrom", wherefrom.web.app(store, allow=lambda _: True))])
    async with asking(app) as client:
        home = await client.get("/ops/wherefrom/")
        assert home.headers["location"] == "/ops/wherefrom/traces"
        page = await get(client, "/ops/wherefrom/traces")
    addresses = [one.attributes.get("href", one.attributes.get("src")) for one in page.walk()]
    own = [address for address in addresses if address and not address.startswith("#")]
    assert own
    assert all(address.startswith("/ops/wherefrom/") for address in own)


async def test_looking_at_traces_makes_none(store: Store, sink: MemorySink) -> None:
    """Mounted in an app that is traced, the page's own requests are left out, refused and failed ones too."""
    page = wherefrom.web.app(store, token="secret")
    home = Route("/", lambda _: PlainTextResponse("hello"))
    app = Starlette(routes=[home, Mount("/wherefrom", page)])
    app.add_middleware(TraceMiddleware, sink=sink)
    async with asking(app) as client:
        for path in (
            "/wherefrom/traces",
            "/wherefrom/traces.json",
            "/wherefrom/static/wherefrom.css",
            "/wherefrom/no",
        ):
            for headers in ({}, {"authorization": "Bearer secret"}):
                await client.get(path, headers=headers)
        assert sink.traces == []
        assert (await client.get("/")).text == "hello"
    assert [trace.info.name for trace in sink.traces] == ["GET /"]


def test_mounting_demands_to_know_who_may_see_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token or a rule the app does not start, and the error says what to pass."""
    monkeypatch.delenv("WHEREFROM_UI_TOKEN", raising=False)
    with pytest.raises(SettingsError, match="WHEREFROM_UI_TOKEN"):
        wherefrom.web.app(store)


async def test_the_settings_name_the_token_and_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not given is read from the settings."""
    monkeypatch.setenv("WHEREFROM_STORE", f"sqlite:///{tmp_path}/wherefrom.db")
    monkeypatch.setenv("WHEREFROM_UI_TOKEN", "secret")
    async with asking(wherefrom.web.app(), headers={"authorization": "Bearer secret"}) as client:
        assert (await client.get("/traces.json")).json()["traces"] == []
    monkeypatch.setenv("WHEREFROM_STORE", "none")
    with pytest.raises(StoreError, match="WHEREFROM_STORE is none"):
        wherefrom.web.app()


async def test_a_rule_of_the_app_decides(store: Store) -> None:
    """A function of the request, plain or a coroutine function, lets in or not."""

    async def is_admin(request: Request) -> bool:
        return request.headers.get("x-role") == "admin"

    for rule in (is_admin, lambda request: request.headers.get("x-role") == "admin"):
        async with asking(wherefrom.web.app(store, allow=rule)) as client:
            assert (await client.get("/traces.json", headers={"x-role": "admin"})).status_code == 200
            refused = await client.get("/traces.json")
            assert refused.status_code == 403
            assert refused.json()["error"] == "forbidden"


async def test_this_machine_is_asked_by_its_own_names(store: Store) -> None:
    """A foreign host name that resolves to this machine is refused, also one that contains a local name."""
    async with asking(make_application(store, Access(hosts=LOOPBACK))) as client:
        for host in ("127.0.0.1", "localhost:8400", "[::1]:8400", "LOCALHOST"):
            assert (await client.get("/traces.json", headers={"host": host})).status_code == 200
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil", "[::1", "", "a@127.0.0.1"):
            answer = await client.get("/traces.json", headers={"host": host})
            assert (answer.status_code, answer.json()["error"]) == (403, "foreign_host"), host


def test_the_page_names_the_extra_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Starlette there is one sentence about what to install."""
    for name in [name for name in sys.modules if name.startswith("wherefrom.web.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.types", None)
    monkeypatch.setattr(wherefrom, "web", importlib.import_module("wherefrom.web"))
    with pytest.raises(MissingExtraError, match=r"wherefrom\[ui\]"):
        _ = wherefrom.web.app
    with pytest.raises(AttributeError):
        _ = wherefrom.web.nothing
