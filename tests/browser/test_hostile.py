"""A trace in which every field is an attempt to run code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from wherefrom import keys
from wherefrom.model import (
    Source,
    Span,
    SpanEvent,
    SpanStatus,
    SpanStatusCode,
    Trace,
    TraceData,
    TraceInfo,
    TraceState,
)
from wherefrom.stores import open_store

from .conftest import serve_page, visiting
from .test_accessibility import findings
from .traffic import MS, REPOSITORY, make_request, make_traffic, source
from .visitor import Visitor

RLO = "\u202e"
EVIL = (
    "<script>window.ran = 1</script>\"'><img src=x onerror=\"window.ran = 2\"><svg onload='window.ran = 3'>"
    f"javascript:window.ran=4//{RLO}txt.exe\u2066"
)
LINK = "javascript:window.ran=5//https://github.com/x"
MEGABYTE = 1_000_000
TRACE = f"tr-{1:032x}"
WIDE = f"tr-{2:032x}"
WORD = "w" * 250


def evil(length: int = 0) -> str:
    """The text, and more of it until it is so long."""
    return EVIL * (length // len(EVIL) + 1)


def make_evil(trace_id: str, begun: int, length: int) -> Trace:
    """A trace with this text in every place that text can be in."""
    text = evil(length)
    everywhere: dict[str, Any] = {EVIL: text, "list": [text], "deep": {EVIL: {EVIL: EVIL}}}
    failure = {
        "exception.type": text,
        "exception.message": text,
        "exception.stacktrace": text + "\n" + text,
    }
    source = Source(
        {
            keys.APP_VERSION: EVIL,
            keys.DEPLOYMENT_ID: EVIL,
            keys.REGION: EVIL,
            keys.ENVIRONMENT: EVIL,
            keys.GIT_COMMIT: EVIL,
            keys.GIT_BRANCH: EVIL,
            keys.GIT_REPO_URL: LINK,
            keys.SOURCE_NAME: EVIL,
        }
    )
    own = {
        keys.USER: EVIL,
        keys.SESSION: EVIL,
        EVIL: text,
        f"{keys.FEATURE_FLAG_PREFIX}{EVIL}": EVIL,
        keys.TRACE_INPUTS: text,
        keys.TRACE_OUTPUTS: text,
    }
    info = TraceInfo(
        trace_id,
        experiment=EVIL,
        request_time=begun,
        execution_duration=50,
        state=TraceState.ERROR,
        client_request_id=EVIL,
        request_preview=text,
        response_preview=text,
        trace_metadata={**source, **own},
        tags={keys.TRACE_NAME_TAG: EVIL, EVIL: text},
        source=source,
    )
    ids = (trace_id[-16:], f"{int(trace_id[-16:], 16) + 77:016x}")
    broken = SpanStatus(SpanStatusCode.ERROR, text)
    spans = [
        Span(trace_id, ids[0], None, EVIL, EVIL, begun * MS, begun * MS + 50 * MS, broken),
        Span(trace_id, ids[1], ids[0], EVIL, EVIL, begun * MS, begun * MS + 20 * MS, broken),
    ]
    for span in spans:
        span.inputs, span.outputs, span.attributes = everywhere, [everywhere], dict(everywhere)
        span.events = [SpanEvent(EVIL, begun * MS, everywhere), SpanEvent("exception", begun * MS, failure)]
        span.links = [{"trace_id": LINK, "span_id": EVIL, "attributes": everywhere}]
    spans[0].attributes |= {
        "wherefrom.outcome": EVIL,
        "http.request.method": EVIL,
        "url.path": EVIL,
        "url.query": EVIL,
        "url.scheme": "javascript",
        "server.address": EVIL,
    }
    return Trace(info, TraceData(spans))


def make_unbroken(number: int, begun: int) -> Trace:
    """A failed trace of names that have no place to break at."""
    trace = make_request(number, begun, source(WORD, WORD, WORD))
    trace.info.state, trace.info.request_preview = TraceState.ERROR, WORD
    trace.info.tags[keys.TRACE_NAME_TAG] = WORD
    trace.info.trace_metadata |= {keys.USER: WORD, keys.SESSION: WORD}
    root = trace.data.spans[0]
    root.name, root.attributes = WORD, {WORD: WORD}
    root.status = SpanStatus(SpanStatusCode.ERROR, WORD * 10)
    return trace


@pytest.fixture(scope="module")
def attacked_site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page over a store with two such traces among others: short texts in the one, long in the other."""
    folder = tmp_path_factory.mktemp("attacked")
    url = f"sqlite:///{folder / 'wherefrom.db'}"
    others = make_traffic()[-40:]
    newest = others[-1].info.request_time
    store = open_store(url)
    store.write([make_unbroken(number, newest - number) for number in (901, 902)])
    store.write([*others, make_evil(TRACE, newest + 1, 0), make_evil(WIDE, newest + 2, MEGABYTE)])
    store.close()
    with serve_page(url, folder) as address:
        yield address


@pytest.fixture
def visitor(browser: Browser, attacked_site: str) -> Iterator[Visitor]:
    with visiting(browser, attacked_site) as visitor:
        yield visitor


def check_nothing_ran(page: Page) -> None:
    """No script of theirs ran, no element of theirs was made, and no link leads anywhere but here."""
    assert page.evaluate("window.ran === undefined")
    own = page.evaluate("[...document.scripts].every(one => one.src.startsWith(location.origin))")
    assert own
    assert page.locator("img, iframe, object, embed, svg[onload]").count() == 0
    handlers = page.evaluate(
        """[...document.querySelectorAll("*")]
          .flatMap(one => one.getAttributeNames())
          .filter(name => name.startsWith("on") || name === "style")"""
    )
    assert handlers == []
    links = page.evaluate("[...document.links].map(one => one.href)")
    ours = (page.evaluate("location.origin + '/'"), f"{REPOSITORY}/commit/")
    assert [link for link in links if not link.startswith(ours)] == []


@pytest.mark.parametrize(
    "path", ["/traces", "/traces?live=true", "/sessions", "/compare", "/deployments", "/compare?by=user"]
)
def test_among_others(visitor: Visitor, path: str) -> None:
    """The page stands, shows what they wrote as text, and its other rows are as ever."""
    page = visitor.open(path)
    check_nothing_ran(page)
    expect(page.get_by_text("<script>").filter(visible=True).first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert len(page.content()) < 400_000


@pytest.mark.parametrize("trace_id", [TRACE, WIDE], ids=["short", "a megabyte each"])
def test_by_itself(visitor: Visitor, trace_id: str) -> None:
    """Opened, unfolded, tagged: all is text, and long text is cut where the page says how to see the rest."""
    page = visitor.open(f"/traces/{trace_id}")
    check_nothing_ran(page)
    page.locator(".rows .pick").first.click()
    page.wait_for_url("**#span-**")
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    check_nothing_ran(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("<script>window.ran = 1</script>")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert len(page.content()) < 2_000_000
    page.get_by_label("Key of the new tag").fill("seen")
    page.get_by_label("Value of the new tag").fill(EVIL)
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_label("seen", exact=True)).to_have_value(EVIL.replace("\n", ""))
    check_nothing_ran(page)


def test_a_word_without_end_fits_on_a_phone(visitor: Visitor) -> None:
    """Nothing sticks out of the window, and what a box cuts can be scrolled with the keyboard."""
    page = visitor.arrive(viewport={"width": 320, "height": 640})
    first, second = (f"tr-{number + 1:032x}" for number in (901, 902))
    paths = (
        "/traces",
        f"/traces/{first}",
        f"/session?id={WORD}",
        f"/compare/traces?a={first}&b={second}",
        "/errors",
    )
    for path in paths:
        page.goto(visitor.address(path))
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
        assert findings(page, rules=("scrollable-region-focusable",)) == [], path


def test_direction_marks_turn_nothing_around(visitor: Visitor) -> None:
    """What stands after a right-to-left override is where it would stand without it."""
    page = visitor.open("/traces")
    assert RLO not in page.locator("main").inner_text()


def test_what_they_wrote_is_asked_for(visitor: Visitor) -> None:
    """A link made of their text finds their traces."""
    page = visitor.open("/sessions")
    page.locator("tbody th a", has_text="<script>").first.click()
    page.wait_for_url("**/session?**")
    check_nothing_ran(page)
    expect(page.locator(".turn")).to_have_count(2)
    page.get_by_role("link", name="Show as traces").click()
    expect(page.locator("#rows > tr")).to_have_count(2)


def test_nothing_inline_runs_whatever_is_written(visitor: Visitor) -> None:
    """Were markup of theirs ever to get into the page, the browser would still run none of it."""
    visitor.forgive("Content Security Policy")
    visitor.forgive("ERR_INVALID_URL")
    page = visitor.open("/traces?size=8")
    page.evaluate(
        """text => {
          document.body.insertAdjacentHTML("beforeend", text);
          const script = document.createElement("script");
          script.textContent = "window.ran = 6";
          document.body.append(script);
        }""",
        EVIL.replace("src=x", "src=data:x"),  # which the policy lets an image ask for
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran === undefined")
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'asked', () => 'refused')") == "refused"


def test_a_fault_is_noticed(visitor: Visitor) -> None:
    """What all these tests rely on: an error on the console and a request to elsewhere are kept."""
    page = visitor.arrive()
    page.evaluate("console.error('oh no')")
    page.evaluate("setTimeout(() => { throw new Error('thrown') })")
    page.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0)")
    page.wait_for_timeout(100)
    faults = "\n".join(visitor.faults)
    visitor.faults.clear()
    assert "oh no" in faults
    assert "thrown" in faults
    assert "asked elsewhere: http://127.0.0.1:9/" in faults
