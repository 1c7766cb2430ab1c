from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom.web.links import quoted, to_curl

from .samples import make_trace


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


def test_what_was_no_request_is_no_command() -> None:
    """A decorated call, or a websocket."""
    assert to_curl(make_trace(1)) is None
    assert to_curl(make_trace(1, spans=[])) is None
