from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from wherefrom.stores import Store
from wherefrom.web.application import make_application
from wherefrom.web.auth import Access

from .conftest import asking, read

TOKEN = "correct horse"


@pytest.fixture
async def stranger(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    async with asking(make_application(store, Access(TOKEN))) as client:
        yield client


async def log_in(client: httpx.AsyncClient, token: str = TOKEN, **fields: str) -> httpx.Response:
    form = read((await client.get("/login")).text).one("form", class_="stack")
    csrf = form.one("input", name="csrf").attributes["value"]
    return await client.post("/login", data={"csrf": csrf, "token": token, **fields})


async def test_a_stranger_is_asked_for_the_token(stranger: httpx.AsyncClient) -> None:
    """Pages redirect to the login form and back; JSON twins respond with 401 and the header to send."""
    answer = await stranger.get("/traces?size=7")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=/traces%3Fsize%3D7"
    form = read((await stranger.get(answer.headers["location"])).text).one("form", class_="stack")
    assert form.one("input", name="next").attributes["value"] == "/traces?size=7"
    twin = await stranger.get("/traces.json")
    assert (twin.status_code, twin.json()["error"]) == (401, "no_token")
    assert (await stranger.get("/static/wherefrom.css")).status_code == 200


async def test_the_token_opens_the_page_and_leaving_closes_it(stranger: httpx.AsyncClient) -> None:
    """A cookie remembers; it does not hold the token, and no script or other site gets it."""
    answer = await log_in(stranger, next="/traces?size=7")
    assert (answer.status_code, answer.headers["location"]) == (303, "/traces?size=7")
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert TOKEN not in cookie
    page = read((await stranger.get("/traces")).text)
    csrf = page.one("form", class_="leave").one("input", name="csrf").attributes["value"]
    assert (await stranger.post("/logout", data={"csrf": csrf})).status_code == 303
    assert (await stranger.get("/traces")).status_code == 303


async def test_programs_send_the_token_with_each_request(stranger: httpx.AsyncClient) -> None:
    """Only the right token is accepted; a wrong one may have any characters."""
    for authorization, status in (
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN}", 200),
        ("Bearer wrong", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer ü", 401),
        (TOKEN, 401),
    ):
        answer = await stranger.get("/traces.json", headers={b"authorization": authorization.encode()})
        assert answer.status_code == status, authorization


async def test_a_wrong_token_opens_nothing(stranger: httpx.AsyncClient) -> None:
    """The form shows an error, and no other cookie value gives access."""
    answer = await log_in(stranger, "wrong")
    assert answer.status_code == 401
    assert "Wrong token" in read(answer.text).one("p", id="wrong").text
    stranger.cookies.set("wherefrom_session", "0" * 64)
    assert (await stranger.get("/traces")).status_code == 303


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/\\evil.example", "\n/x", ""])
async def test_logging_in_leads_nowhere_else(stranger: httpx.AsyncClient, wanted: str) -> None:
    """The login redirects only to pages of the application."""
    assert (await log_in(stranger, next=wanted)).headers["location"] == "/"


async def test_forms_are_ours(stranger: httpx.AsyncClient) -> None:
    """A form without the token of its cookie, or from another site, changes nothing."""
    form = read((await stranger.get("/login")).text).one("form", class_="stack")
    csrf = form.one("input", name="csrf").attributes["value"]
    good = {"csrf": csrf, "token": TOKEN}
    for fields, headers in (
        ({"token": TOKEN}, {}),
        ({"token": TOKEN, "csrf": "0" * 64}, {}),
        (good, {"origin": "https://evil.example"}),
        (good, {"sec-fetch-site": "cross-site"}),
        (good, {"origin": "null", "sec-fetch-site": "cross-site"}),
        (good, {"sec-fetch-site": "same-site"}),
    ):
        answer = await stranger.post("/login", data=fields, headers=headers)
        assert answer.status_code == 403, (fields, headers)
    assert (await stranger.post("/login", data=good | {"token": "x" * 1_100_000})).status_code == 413
    many = good | {str(number): "" for number in range(30)}
    assert (await stranger.post("/login", data=many)).status_code == 400
    for ours in ({}, {"origin": "http://127.0.0.1"}, {"origin": "null", "sec-fetch-site": "same-origin"}):
        assert (await stranger.post("/login", data=good, headers=ours)).status_code == 303


async def test_over_https_cookies_stay_there(store: Store) -> None:
    """A cookie that was set over TLS is never sent in the clear."""
    transport = httpx.ASGITransport(make_application(store, Access(TOKEN)))
    async with httpx.AsyncClient(transport=transport, base_url="https://traces.example") as client:
        answer = await log_in(client)
        assert all("Secure" in cookie for cookie in answer.headers.get_list("set-cookie"))


async def test_without_a_token_there_is_nothing_to_log_in_to(client: httpx.AsyncClient) -> None:
    """The form is there only where it leads somewhere."""
    assert (await client.get("/login")).status_code == 404
