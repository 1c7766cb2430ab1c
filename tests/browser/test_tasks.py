"""Ten things that somebody wants to know of a chat service, each from the list in at most three clicks.

``TEST_CHATS=50000`` runs them on a store of that many traces, which ``benchmarks/chats.py`` makes.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import pytest
from benchmarks.chats import CAUSE, CHAT, FAILURE, FLAG, NEW, OLD, fill, make_chats
from playwright.sync_api import Browser, Locator, Page, expect

from wherefrom import TraceClient
from wherefrom.stores import open_store

from .conftest import serve_page, visiting
from .visitor import Visitor

COUNT = int(os.environ.get("TEST_CHATS", "3000"))
CLICKS = 3


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a store of the chat service."""
    url = f"sqlite:///{tmp_path_factory.mktemp('chats') / 'chats.db'}"
    fill(url, COUNT)
    return url


@pytest.fixture(scope="module")
def chat_site(chats: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_page(chats, tmp_path_factory.mktemp("ui")) as url:
        yield url


@pytest.fixture
def user(browser: Browser, chat_site: str) -> Iterator[User]:
    """Somebody at the list of the traces of the last 24 hours."""
    with visiting(browser, chat_site) as visitor:
        yield User(visitor)


class User:
    """Clicks, and no more than three times."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor
        self.page: Page = visitor.open("/")
        self.clicks = 0
        self.facets = self.page.get_by_role("complementary", name="Facets")
        self.rows = self.page.locator("#rows > tr")

    def click(self, target: Locator) -> None:
        self.clicks += 1
        assert self.clicks <= CLICKS
        target.click()
        self.page.wait_for_load_state()

    def go(self, name: str) -> None:
        """Click on a link at the top of the page."""
        self.click(self.page.get_by_role("navigation").get_by_role("link", name=name, exact=True).first)

    def narrow(self, value: str) -> None:
        """Click on a value of a facet."""
        self.click(self.facets.locator(f"a[data-value='{value}']:not(.way)").first)

    def open_first(self) -> None:
        self.click(self.rows.first.get_by_role("link").first)
        self.page.wait_for_url("**/traces/tr-*")


def test_the_newest_errors_and_their_message(user: User) -> None:
    user.narrow("ERROR")
    expect(user.rows.first).to_contain_text(re.compile(rf"{FAILURE}: model-\d did not answer"))
    assert user.rows.count() == user.rows.locator(".state-error").count() > 5
    user.open_first()
    expect(user.page.get_by_role("region", name="Failure").first).to_contain_text("did not answer")
    expect(user.page.locator("#detail, .detail").get_by_text(CAUSE).first).to_be_visible()


def test_what_a_deployment_an_hour_ago_changed(user: User) -> None:
    user.go("Deployments")
    expect(user.page.locator("main tbody tr").first).to_contain_text(f"deploy-{NEW}")
    user.go("Compare")
    expect(user.page.get_by_role("region", name="Verdicts")).to_contain_text(f"{NEW} is worse than {OLD}")


def test_the_slowest_of_a_route(user: User, chats: str) -> None:
    user.narrow(CHAT)
    user.click(user.page.locator("thead").get_by_role("link", name="Duration"))
    user.page.wait_for_url("**order=slowest**")
    day = f"name = '{CHAT}' AND timestamp_ms > {time.time_ns() // 1_000_000 - 86_400_000}"
    client = TraceClient(chats)
    (slowest,) = client.search_traces(filter_string=day, order_by=["execution_time DESC"], max_results=1)
    assert user.rows.first.get_attribute("data-trace") == slowest.info.trace_id


def test_the_span_that_took_the_time(user: User) -> None:
    user.click(user.page.locator("thead").get_by_role("link", name="Duration"))
    user.open_first()
    user.page.locator(".seek select").select_option("own")
    user.click(user.page.get_by_role("button", name="Find", exact=True))
    expect(user.page.locator(".waterfall .what").first).to_have_text(re.compile("^chat "))


def test_question_and_answer_of_a_chat(user: User) -> None:
    user.click(user.rows.filter(has_text=CHAT).filter(has_text="OK").first.get_by_role("link").first)
    section = user.page.get_by_role("region", name="Conversation")
    expect(section.locator(".is-user").last).to_contain_text(re.compile(r"\d"))
    expect(section.locator(".is-assistant").last.locator(".prose")).to_be_visible()


def test_the_conversation_of_a_user(user: User) -> None:
    user.click(user.rows.filter(has_text=CHAT).first.get_by_role("link", name=re.compile("^chat-")))
    turns = user.page.locator(".turn:not(.is-aside)")
    assert turns.count() >= 1
    expect(turns.last).to_contain_text(re.compile("User|Request"))


def test_two_versions_compared_and_shared(user: User) -> None:
    user.click(user.page.get_by_role("link", name="Compare by version"))
    verdict = user.page.get_by_role("region", name="Verdicts").inner_text()
    assert f"{NEW} is worse than {OLD}" in verdict
    again = user.visitor.open(user.page.url.removeprefix(user.visitor.site))
    assert f"{NEW} is worse than {OLD}" in again.get_by_role("region", name="Verdicts").inner_text()


def test_narrowed_by_a_flag(user: User) -> None:
    user.narrow("true")
    assert FLAG in user.page.get_by_label("Filter", exact=True).input_value()
    expect(user.rows).not_to_have_count(0)


def test_a_view_is_saved(user: User) -> None:
    user.narrow(NEW)
    user.click(user.page.get_by_text("Saved views"))
    user.page.get_by_label("Save this one as").fill("new version")
    user.click(user.page.get_by_role("button", name="Save", exact=True))
    user.page.goto(user.visitor.address("/traces"))
    user.page.get_by_text("Saved views").click()
    expect(user.page.get_by_role("link", name="new version")).to_be_visible()


def test_live(user: User, chats: str) -> None:
    with user.page.expect_response("**/changes?**"):
        user.click(user.page.get_by_role("button", name="Live"))
    store = open_store(chats)
    store.write(list(make_chats(1, time.time_ns() // 1_000_000, seed=time.time_ns())))
    store.close()
    expect(user.page.get_by_role("status")).to_have_text("1 new trace")
    expect(user.rows.first).to_contain_text(NEW)
