"""Bodies and headers, recorded only when asked, without their secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response
from hypothesis import given
from hypothesis import strategies as st

from wherefrom import MemorySink, current_trace
from wherefrom.asgi.capture import REDACTED, Body, Redactor

from .raw import client, http_scope, only, root_of, serve, traced


def echo() -> FastAPI:
    app = FastAPI()

    @app.post("/")
    async def read(request: Request) -> Response:
        return Response(await request.body(), media_type=request.headers.get("content-type"))

    return app


async def test_nothing_is_recorded_unless_asked(sink: MemorySink) -> None:
    """Bodies and headers hold secrets: by default neither is recorded."""
    async with client(traced(echo(), sink)) as http:
        await http.post("/", json={"q": 1}, headers={"Cookie": "s=1"})
    root = root_of(sink)
    assert root.inputs is root.outputs is None
    assert not [key for key in root.attributes if "header" in key]
    assert "mlflow.traceInputs" not in only(sink).info.trace_metadata


async def test_json_is_recorded_as_data(sink: MemorySink) -> None:
    """Bodies become inputs, outputs and previews; the values of secret keys are gone at any depth."""
    body = {"q": "héllo", "auth": [{"PassWord": "hunter2"}], "token": {"a": 1}, "n": [1, None, 2.5]}
    async with client(traced(echo(), sink, capture_bodies=True)) as http:
        response = await http.post("/", json=body)
    assert response.json() == body
    root, info = root_of(sink), only(sink).info
    expected = {**body, "auth": [{"PassWord": REDACTED}], "token": REDACTED}
    assert root.inputs == root.outputs == expected
    assert (
        json.loads(info.request_preview) == json.loads(info.trace_metadata["mlflow.traceInputs"]) == expected
    )
    assert (
        json.loads(info.response_preview)
        == json.loads(info.trace_metadata["mlflow.traceOutputs"])
        == expected
    )


async def test_a_cut_body_keeps_no_secret(sink: MemorySink) -> None:
    """Only the beginning is kept, and what is left of JSON that cannot be parsed has no secrets either."""
    body = json.dumps({"password": {"old": {"a": "s3cret"}, "new": ["s3cret", "s3cret"]}, "q": "x" * 200})
    async with client(traced(echo(), sink, capture_bodies=True, max_body_bytes=120)) as http:
        await http.post("/", content=body, headers={"content-type": "application/json"})
    inputs = root_of(sink).inputs
    assert inputs.startswith(f'{{"password": "{REDACTED}", "q": "xxx')
    assert inputs.endswith("x...")
    assert root_of(sink).attributes["http.response.body.size"] == len(body)


@pytest.mark.parametrize("own", ["inputs", "outputs"])
async def test_the_app_s_own_inputs_and_outputs_stay(sink: MemorySink, own: str) -> None:
    """What the handler recorded by itself is not replaced."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        trace = current_trace()
        assert trace is not None
        setattr(trace.root, own, "mine")
        await echo()(scope, receive, send)

    async with client(traced(app, sink, capture_bodies=True)) as http:
        await http.post("/", content="theirs", headers={"content-type": "text/plain"})
    recorded = {"inputs": "theirs", "outputs": "theirs", own: "mine"}
    assert {"inputs": root_of(sink).inputs, "outputs": root_of(sink).outputs} == recorded


async def test_no_body_is_recorded_where_there_is_none(sink: MemorySink) -> None:
    """An empty body is no value."""
    async with client(traced(echo(), sink, capture_bodies=True)) as http:
        await http.post("/")
    assert root_of(sink).inputs is root_of(sink).outputs is None


async def test_listed_headers_are_recorded(sink: MemorySink) -> None:
    """``capture_headers`` is an allow-list, for both directions, whatever the case; values are cut."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        headers = [(b"X-Model", b"m1"), (b"set-cookie", b"secret=1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    sent = [
        (b"accept", b"a/b"),
        (b"accept", b"c/d"),
        (b"x-model", b"x" * 999),
        (b"authorization", b"Bearer s"),
    ]
    await serve(traced(app, sink, capture_headers="Accept, X-Model"), http_scope(headers=sent))
    captured = {key: value for key, value in root_of(sink).attributes.items() if ".header." in key}
    assert captured == {
        "http.request.header.accept": ["a/b", "c/d"],
        "http.request.header.x-model": ["x" * 256],
        "http.response.header.x-model": ["m1"],
    }


NONE = Redactor(())
SECRETS = Redactor(["password", "Token"])


def recorded(content: bytes, kind: str, limit: int = 4096, redactor: Redactor = SECRETS) -> Any:
    body = Body(limit)
    for start in range(0, len(content), 7):
        body.add(content[start : start + 7])
    return body.value(kind, redactor)


class TestBody:
    @pytest.mark.parametrize(
        ("kind", "content", "value"),
        [
            ("application/json; charset=utf-8", b'{"a": 1}', {"a": 1}),
            ("application/problem+json", b"[1]", [1]),
            ("APPLICATION/JSON", b"[1]", [1]),
            ("application/json", b'{"a": ', '{"a": '),
            ("application/json", b'"\xff"', '"\ufffd"'),
            ("text/html", "é".encode(), "é"),
            ("image/svg+xml", b"<svg/>", "<svg/>"),
            ("text/event-stream", b'data: {"token": "t"}', f'data: {{"token": "{REDACTED}"}}'),
            ("application/x-ndjson", b'{"password":1}\n{"a":2}', f'{{"password":"{REDACTED}"}}\n{{"a":2}}'),
            ("application/x-www-form-urlencoded", b"a=1&TOKEN=x&b=", {"a": "1", "TOKEN": REDACTED, "b": ""}),
            ("image/png", b"\x89PNG", "<image/png, 4 bytes>"),
            ("", b"abc", "<no content type, 3 bytes>"),
            ("multipart/form-data; boundary=x", b"--x", "<multipart/form-data, 3 bytes>"),
        ],
    )
    def test_each_media_type(self, kind: str, content: bytes, value: Any) -> None:
        """JSON is data, forms are dicts, text is text, anything else is its type and size."""
        assert recorded(content, kind) == value

    def test_depth_is_no_trouble(self) -> None:
        """JSON nested deeper than anything reads is kept as text."""
        for depth in (1500, 2000):
            content = b"[" * depth + b"]" * depth
            assert recorded(content, "application/json") == content.decode()

    def test_a_limit_of_nothing(self) -> None:
        """With a limit of zero the size is known, the content not."""
        assert recorded(b"abc", "text/plain", limit=0) == "..."

    @pytest.mark.parametrize(
        ("text", "clean"),
        [
            ('{"password": "a\\"b', '{"password": "*"'),
            ('{"password" : "a", "b": 1', '{"password" : "*", "b": 1'),
            ('{"password": 12', '{"password": "*"'),
            ('{"password": 12, "b"', '{"password": "*", "b"'),
            ('{"password": null}, "b"', '{"password": "*"}, "b"'),
            ('{"token": {"a": {"b": "}"}, "c": "s"}, "d": 1', '{"token": "*", "d": 1'),
            ('{"token": [["s"], "s"', '{"token": "*"'),
            ('{"token": {"password": "s"}, "x": {"password": "s"', '{"token": "*", "x": {"password": "*"'),
            ('{"pass\\u0077ord": "s", "a"', '{"pass\\u0077ord": "*", "a"'),
            ('{"a": "password", "b": "\\"token\\": 1"', '{"a": "password", "b": "\\"token\\": 1"'),
            ('{"password": }', '{"password": "*"}'),
            ('{"password": ', '{"password": "*"'),
            ('{"bad\\q": 1, "token": "s"', '{"bad\\q": 1, "token": "*"'),
        ],
    )
    def test_secrets_in_text(self, text: str, clean: str) -> None:
        """In JSON that is cut or broken a secret key's whole value is gone, however it is nested."""
        assert SECRETS.text(text) == clean.replace("*", REDACTED)
        assert NONE.text(text) == text

    @given(
        st.recursive(
            st.just("s3cret") | st.integers() | st.none(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
        ),
        st.integers(0, 300),
    )
    def test_no_cut_shows_a_secret(self, value: Any, limit: int) -> None:
        """Wherever a body is cut, nothing of a secret's value is in what is kept."""
        content = json.dumps({"a": [{"password": value}], "b": "end"}).encode()
        assert "s3cret" not in str(recorded(content, "application/json", limit))
