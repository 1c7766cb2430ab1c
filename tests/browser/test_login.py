"""With a token set, only clients with the token have access."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from .conftest import serve_page, visiting
from .visitor import Visitor

TOKEN = "open sesame"


@pytest.fixture(scope="module")
def locked_site(browser: Browser, store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_page(store_url, tmp_path_factory.mktemp("locked"), WHEREFROM_UI_TOKEN=TOKEN) as url:
        yield url


@pytest.fixture
def stranger(browser: Browser, locked_site: str) -> Iterator[Visitor]:
    with visiting(browser, locked_site) as visitor:
        yield visitor


def test_the_token_opens_what_was_asked_for(stranger: Visitor) -> None:
    """The cookie is inaccessible to scripts; after logging out, the page requires the token again."""
    page = stranger.open("/compare", by="region")
    expect(page).to_have_title("Log in · Wherefrom")
    expect(page.get_by_label("Token")).to_be_focused()
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Compare by region")
    assert "session" not in page.evaluate("document.cookie")
    cookies = {one["name"]: one for one in page.context.cookies()}
    kept = cookies["wherefrom_session"]
    assert kept["httpOnly"]
    assert kept["sameSite"] == "Strict"
    assert TOKEN not in kept["value"]
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_title("Log in · Wherefrom")
    page.goto(stranger.address("/traces"))
    expect(page).to_have_title("Log in · Wherefrom")


def test_another_token_is_refused(stranger: Visitor) -> None:
    stranger.forgive("status of 401")
    page = stranger.open("/traces")
    page.get_by_label("Token").fill("open barley")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("Wrong token.")
    page.goto(stranger.address("/traces"))
    expect(page).to_have_title("Log in · Wherefrom")
