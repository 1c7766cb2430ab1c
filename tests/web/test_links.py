"""Links to commits: https, or none."""

from __future__ import annotations

import shutil
import subprocess

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom import MemorySink, TraceMiddleware
from wherefrom._types import Receive, Scope, Send
from wherefrom.web.links import commit_url, quoted, to_curl

from .samples import make_trace

COMMIT = "91680b57f0e6ef8ffccb594f82742789910725e2"


@pytest.mark.parametrize(
    ("repository", "page"),
    [
        ("https://github.com/org/app.git", "https://github.com/org/app/commit/"),
        ("https://github.com/org/app", "https://github.com/org/app/commit/"),
        ("http://user:secret@github.com/org/app/", "https://github.com/org/app/commit/"),
        ("git@github.com:org/my.app.git", "https://github.com/org/my.app/commit/"),
        ("ssh://git@gitlab.example.com:2222/a/b/c.git", "https://gitlab.example.com/a/b/c/-/commit/"),
        ("https://git.example.com:8443/~ann/app", "https://git.example.com:8443/~ann/app/commit/"),
        ("git://bitbucket.org/org/app.git", "https://bitbucket.org/org/app/commits/"),
    ],
)
def test_the_page_of_a_commit(repository: str, page: str) -> None:
    assert commit_url(repository, COMMIT) == page + COMMIT
    assert commit_url(repository, COMMIT[:7]) == page + COMMIT[:7]


@pytest.mark.parametrize(
    "repository",
    [
        None,
        "",
        "javascript:alert(1)",
        "javascript:alert",
        "data:text/html,x",
        "file:///etc/passwd",
        "/srv/git/app.git",
        "https://",
        "https://host",
        "https://host/../../x",
        "https://host/a b",
        'https://host/"onclick=x',
        "https://ho\u202est/org/app",
        "https://host/org/app?x=y#z",
        "C:\\app",
    ],
)
def test_what_is_no_repository_has_no_page(repository: str | None) -> None:
    assert commit_url(repository, COMMIT) is None


@pytest.mark.parametrize("commit", [None, "", "main", "123456", COMMIT * 2, COMMIT + "\n", "../../x"])
def test_what_is_no_commit_has_no_page(commit: str | None) -> None:
    assert commit_url("https://github.com/org/app", commit) is None


@given(st.text())
def test_whatever_is_said_the_link_is_https_and_plain(repository: str) -> None:
    for text in (repository, f"https://{repository}", f"git@host.example:{repository}"):
        url = commit_url(text, COMMIT)
        assert url is None or (url.startswith("https://") and url.isascii() and '"' not in url)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@settings(max_examples=60, deadline=None)
def test_a_word_is_that_word_to_a_shell(text: str) -> None:
    """Whatever it holds; and nothing in it acts on a terminal when it is pasted."""
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    assert quoted(text).isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {quoted(text)}"], capture_output=True, check=True)
    assert done.stdout == text.encode()


def test_what_was_recorded_of_a_request_is_asked_again() -> None:
    """Address, query, headers and body, each as one word."""
    trace = make_trace(
        1,
        attributes={
            "http.request.method": "PUT", "url.scheme": "https", "server.address": "::1", "server.port": 8443,
            "url.path": "/it's", "url.query": "a=1&b=2", "user_agent.original": "me",
            "http.request.header.x-tenant": ["acme"], "http.request.header.@/etc/passwd": ["x"],
        },
    )  # fmt: skip
    trace.data.spans[0].inputs = "plain"
    assert to_curl(trace) == (
        """curl --globoff -X PUT 'https://[::1]:8443/it'"'"'s?a=1&b=2' -H 'X-Request-ID: req-1'"""
        " -H 'User-Agent: me'"
        " -H 'x-tenant: acme' --data-raw plain"
    )
    trace.data.spans[0].attributes["url.scheme"] = "file"
    assert "file:" not in str(to_curl(trace))
    trace.data.spans[0].inputs = "x" * 200_000
    assert "--data" not in str(to_curl(trace))


async def test_a_recorded_request_is_asked_where_it_was_answered() -> None:
    """With the scheme and the port, also where a server names no host."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sink = MemorySink()
    for base in ("https://api.example:8443", "https://api.example", "http://127.0.0.1:9000"):
        transport = httpx.ASGITransport(TraceMiddleware(app, sink=sink))
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            await client.get("/a")
    urls = [str(to_curl(trace)).split(" ")[4] for trace in sink.traces]
    assert urls == [
        "https://api.example:8443/a", "https://api.example:443/a", "http://127.0.0.1:9000/a",
    ]  # fmt: skip


def test_what_was_no_request_is_no_command() -> None:
    """A decorated call, or a websocket."""
    assert to_curl(make_trace(1)) is None
    assert to_curl(make_trace(1, spans=[])) is None
