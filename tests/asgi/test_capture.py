"""Bodies and headers, recorded only when asked, without their secrets."""

from __future__ import annotations

import asyncio
import encodings
import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import brotli
import httpx
import pytest
import uvicorn
import zstandard
from fastapi import FastAPI, Request
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import Response, StreamingResponse
from hypothesis import given
from hypothesis import strategies as st

from wherefrom import MemorySink, Settings, TraceMiddleware, current_trace
from wherefrom.asgi import decoding
from wherefrom.asgi.capture import REDACTED, Body, Redactor
from wherefrom.asgi.decoding import codings_of

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


# --- On a real server ---------------------------------------------------------------------------------------

ANSWER = {"answer": "é" * 50, "items": list(range(300)), "password": "hunter2"}
KEPT = {**ANSWER, "password": REDACTED}
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


class Answering:
    """Answers with what it was sent, or with ``ANSWER`` in a coding and charset."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.app.post("/echo")(self.echo)
        self.app.get("/coded/{coding}")(self.coded)
        self.app.get("/json")(self.plain)
        self.app.get("/stream")(self.stream)

    async def echo(self, request: Request) -> Response:
        return Response(str(len(await request.body())), media_type="text/plain")

    async def coded(self, coding: str) -> Response:
        content = CODINGS[coding](json.dumps(ANSWER).encode())
        return Response(content, media_type="application/json", headers={"content-encoding": coding})

    async def plain(self) -> dict[str, Any]:
        return ANSWER

    async def stream(self) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for number in range(100):
                yield f"line {number}\n".encode()

        return StreamingResponse(parts(), media_type="text/plain")


def roots_of(sink: MemorySink) -> list[Any]:
    return [found.root for found in sink.traces]


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app under uvicorn."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, ws="none", lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            yield http
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("coding", CODINGS)
async def test_compressed_bodies_are_recorded_as_what_they_say(coding: str, sink: MemorySink) -> None:
    """Both ways; the size is that on the wire, and the app and the client get what was sent."""
    content = CODINGS[coding](json.dumps(ANSWER).encode())
    headers = {"content-type": "application/json", "content-encoding": coding}
    async with served(traced(Answering().app, sink, capture_bodies=True)) as http:
        sent = await http.post("/echo", content=content, headers=headers)
        answered = await http.get(f"/coded/{coding}")
    assert (sent.text, answered.json()) == (str(len(content)), ANSWER)
    first, second = roots_of(sink)
    assert (first.inputs, second.outputs) == (KEPT, KEPT)
    assert second.attributes["http.response.body.size"] == len(content)
    assert "hunter2" not in "".join(found.to_json() for found in sink.traces)


@pytest.mark.parametrize("is_inside", [True, False])
async def test_with_gzip_middleware_inside_and_outside(is_inside: bool, sink: MemorySink) -> None:
    """Inside of us the response is compressed when we see it; outside it compresses the same message."""
    app = Answering().app
    options = {"sink": sink, "settings": Settings(store="none", capture_bodies=True)}
    added: list[Any] = [(TraceMiddleware, options), (GZipMiddleware, {"minimum_size": 1})]
    for middleware, arguments in added[:: -1 if is_inside else 1]:
        app.add_middleware(middleware, **arguments)
    async with served(app) as http:
        answers = [await http.get(path) for path in ("/json", "/stream")]
        await http.get("/json", headers={"accept-encoding": "identity"})
    assert [answer.headers["content-encoding"] for answer in answers] == ["gzip", "gzip"]
    whole, streamed, plain = roots_of(sink)
    assert whole.outputs == plain.outputs == KEPT
    assert streamed.outputs == answers[1].text
    assert whole.attributes["http.response.body.size"] == int(answers[0].headers["content-length"])


@pytest.mark.parametrize("copies", [True, False])
async def test_with_another_middleware_outside(copies: bool, sink: MemorySink) -> None:
    """Whether it changes the app's messages or sends others, body and headers belong together."""
    inner = traced(Answering().app, sink, capture_bodies=True, capture_headers="content-encoding")

    async def compressing(scope: Any, receive: Any, send: Any) -> None:
        async def send_compressed(message: Any) -> None:
            message = {**message} if copies else message
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if pair[0] != b"content-length"]
                message["headers"] = [*kept, (b"content-encoding", b"br")]
            else:
                message["body"] = brotli.compress(message["body"])
            await send(message)

        await inner(scope, receive, send_compressed)

    async with served(compressing) as http:
        assert (await http.get("/json")).json() == ANSWER
    root = root_of(sink)
    assert root.outputs == KEPT
    assert ("http.response.header.content-encoding" in root.attributes) is not copies


async def test_of_a_response_what_went_out_is_recorded(sink: MemorySink) -> None:
    """The answer to HEAD has no body, whatever the framework sends; nor is what the server refused one."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        length = 2 if scope["path"] == "/short" else 5
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"he", "more_body": True})
        await send({"type": "http.response.body", "body": b"llo"})

    async with served(traced(app, sink, capture_bodies=True)) as http:
        assert (await http.get("/")).text == "hello"
        assert (await http.head("/")).content == b""
        with suppress(httpx.HTTPError):
            await http.get("/short")
    found = [(root.outputs, root.attributes["http.response.body.size"]) for root in roots_of(sink)]
    assert found == [("hello", 5), (None, 0), ("he", 2)]
    assert roots_of(sink)[1].attributes.get("wherefrom.response.chunks") is None


# --- Codings and charsets -----------------------------------------------------------------------------------

NONE = Redactor(())
SECRETS = Redactor(["password", "Token"])


def recorded(
    content: bytes, kind: str, limit: int = 4096, redactor: Redactor = SECRETS, coding: str = ""
) -> Any:
    body = Body(limit)
    for start in range(0, len(content), 7):
        body.add(content[start : start + 7])
    return body.value(kind, redactor, coding)


JSON = "application/json"
LONG = json.dumps([f"item {number} é" for number in range(2000)]).encode()


def raw_deflate(content: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(content) + stream.flush()


FORMS = [
    *CODINGS.items(),
    ("x-gzip", gzip.compress),
    ("deflate", raw_deflate),
    ("GZIP", lambda content: gzip.compress(content[:5]) + gzip.compress(content[5:])),
    ("zstd", lambda content: zstandard.compress(content[:5]) + zstandard.compress(content[5:])),
    ("br", lambda content: brotli.compress(content, lgwin=16, quality=1)),
    ("gzip, identity,  br", lambda content: brotli.compress(gzip.compress(content))),
    ("identity", lambda content: content),
]


class TestCodings:
    @pytest.mark.parametrize(("coding", "compress"), FORMS)
    def test_the_content_is_recorded(self, coding: str, compress: Callable[[bytes], bytes]) -> None:
        """In one piece, as data; without its secrets."""
        content = b'{"q": "\xc3\xa9", "password": "s"}'
        assert recorded(compress(content), JSON, coding=coding) == {"q": "é", "password": REDACTED}
        assert recorded(compress(b"a=1&token=s"), "application/x-www-form-urlencoded", coding=coding) == {
            "a": "1",
            "token": REDACTED,
        }

    @pytest.mark.parametrize(("coding", "compress"), FORMS)
    def test_what_is_long_is_recorded_up_to_the_limit(
        self, coding: str, compress: Callable[[bytes], bytes]
    ) -> None:
        """Of the content, where that has more bytes; its end is no half character."""
        body = compress(LONG)
        for limit in (100, 101, 4096):
            text = recorded(body, JSON, limit, coding=coding)
            if text.startswith("<"):  # too little to decompress anything
                assert text == f"<application/json, {', '.join(codings_of(coding))}, {len(body):,} bytes>"
                assert limit < 200
                continue
            assert text.endswith("...")
            assert LONG.decode().startswith(text[:-3])
            assert 0 < len(text[:-3].encode()) <= limit

    @pytest.mark.parametrize("size", [4095, 4096, 4097])
    @pytest.mark.parametrize(("coding", "compress"), FORMS[:-1])
    def test_at_the_limit(self, coding: str, compress: Callable[[bytes], bytes], size: int) -> None:
        """What fits exactly is whole."""
        text = recorded(compress(b"x" * size), "text/plain", coding=coding)
        assert text == "x" * min(size, 4096) + "..." * (size > 4096)

    @pytest.mark.parametrize(
        ("coding", "content", "text"),
        [
            ("gzip", b"x" * 1234, "<application/json, gzip, 1,234 bytes>"),
            ("gzip", gzip.compress(b"[1]", mtime=0)[:5], "<application/json, gzip, 5 bytes>"),
            ("br", b"\xff" * 9, "<application/json, br, 9 bytes>"),
            ("zstd", b"none", "<application/json, zstd, 4 bytes>"),
            ("compress", b"x" * 1_000_000, "<application/json, compress, 1,000,000 bytes>"),
            ("gzip, gzip, gzip, gzip", b"x", "<application/json, gzip, gzip, gzip, 1 bytes>"),
            ("\ud800" + "x" * 99, b"x", "<application/json, ?" + "x" * 56 + "..., 1 bytes>"),
        ],
    )
    def test_what_cannot_be_read_is_one_line(self, coding: str, content: bytes, text: str) -> None:
        """Type, coding and size: broken, unknown, or in too many layers."""
        assert recorded(content, JSON, 1_000_000, coding=coding) == text

    def test_a_picture_is_one_line_too(self) -> None:
        """It is not decompressed."""
        assert recorded(gzip.compress(b"x" * 9), "image/png", coding="gzip") == "<image/png, gzip, 23 bytes>"

    @pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
    @pytest.mark.parametrize(
        ("coding", "compress"),
        [
            ("gzip", gzip.compress),
            ("deflate", zlib.compress),
            ("deflate", raw_deflate),
            ("zstd", zstandard.compress),
            ("br", lambda content: brotli.compress(content, quality=5)),
            ("br", lambda content: brotli.compress(content, quality=5, lgwin=24)),
            ("br", lambda content: brotli.compress(content[:1_000_000], lgwin=24)),
            ("br", lambda content: brotli.compress(content, quality=5, lgwin=16)),
            ("gzip, gzip", lambda content: gzip.compress(gzip.compress(content))),
            ("gzip", lambda content: gzip.compress(b"") * 10_000),
            ("zstd", lambda content: zstandard.compress(b"") * 10_000),
        ],
    )
    def test_a_bomb_is_not_decompressed(self, coding: str, compress: Callable[[bytes], bytes]) -> None:
        """No more is made of it than is recorded, in memory and in what the libraries take for themselves."""
        content = compress(bytes(16_000_000))
        program = (
            "import re, sys\n"
            "from wherefrom.asgi.decoding import decompress, prepare\n"
            "prepare()\n"
            "content = sys.stdin.buffer.read()\n"
            "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
            "before = peak()\n"
            f"found = decompress(content[:4096], len(content) <= 4096, {coding.split(', ')!r}, 4096)\n"
            "assert found is None or len(found[0]) <= 4096\n"
            "print(peak() - before)"
        )
        done = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, check=True)
        assert int(done.stdout) < 4_000  # kB

    def test_a_second_block_is_no_way_around(self) -> None:
        """Brotli: a small first block says nothing about the next."""
        stream = brotli.Compressor(lgwin=24)
        body = stream.process(b"first") + stream.flush() + stream.process(bytes(16_000_000)) + stream.finish()
        assert len(body) < 40
        assert recorded(body, "text/plain", coding="br") == "first..."

    @pytest.mark.parametrize("library", ["backports.zstd", "zstandard"])
    def test_each_library(self, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Either one for Zstandard; without one, a body is one line."""
        for name in ("compression.zstd", "backports.zstd", "zstandard"):
            if name != library:
                monkeypatch.setitem(sys.modules, name, None)
        if library != "backports.zstd":
            monkeypatch.delattr("backports.zstd")
        decoding._zstd_decoder.cache_clear()
        try:
            assert recorded(zstandard.compress(b"[1]"), JSON, coding="zstd") == [1]
            monkeypatch.setitem(sys.modules, library, None)
            monkeypatch.delattr("backports.zstd", raising=False)
            monkeypatch.setitem(sys.modules, "brotli", None)
            decoding._zstd_decoder.cache_clear()
            decoding._brotli_module.cache_clear()
            line = "<application/json, zstd, 12 bytes>"
            assert recorded(zstandard.compress(b"[1]"), JSON, coding="zstd") == line
            assert recorded(brotli.compress(b"[1]"), JSON, coding="br") == "<application/json, br, 7 bytes>"
        finally:
            decoding._zstd_decoder.cache_clear()
            decoding._brotli_module.cache_clear()


class TestCharsets:
    @pytest.mark.parametrize(
        ("kind", "codec"),
        [
            ("text/plain; charset=iso-8859-1", "latin-1"),
            ("text/html; Charset='Windows-1252'", "cp1252"),
            ('text/plain; charset="UTF-16"; format=flowed', "utf-16"),
            ("text/plain;charset=utf-16le", "utf-16-le"),
            ("application/xml; charset=ISO-8859-15", "iso8859-15"),
            ("text/csv; charset=macintosh", "mac-roman"),
            ("text/plain; charset=utf-8", "utf-8-sig"),
            ("text/plain", "utf-8"),
            ("text/plain", "utf-8-sig"),
            ("text/plain", "utf-16"),
        ],
    )
    def test_text(self, kind: str, codec: str) -> None:
        """By the content type, whatever its spelling, or by the byte order mark."""
        assert recorded("naïve é".encode(codec), kind) == "naïve é"

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("shift_jis", "日本"),
            ("euc-kr", "한국"),
            ("gb18030", "中文"),
            ("big5", "中文"),
            ("koi8-u", "їжак"),
        ],
    )
    def test_text_of_other_scripts(self, name: str, text: str) -> None:
        """In the codecs that Python has."""
        assert recorded(text.encode(name), f"text/plain; charset={name}") == text

    @pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "latin-1"])
    def test_json(self, codec: str) -> None:
        """Without a charset by its form, as ``json.loads`` does, and so does Starlette."""
        kind = f"{JSON}; charset=latin-1" if codec == "latin-1" else JSON
        content = '{"a": "é", "password": "s"}'.encode(codec)
        assert recorded(content, kind) == {"a": "é", "password": REDACTED}
        assert recorded(gzip.compress(content), kind, coding="gzip") == {"a": "é", "password": REDACTED}

    @pytest.mark.parametrize(
        "head",
        [
            '<?xml version="1.0" encoding="ISO-8859-1"?>',
            "<!doctype html><meta charset=iso-8859-1>",
            '<html><meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1">',
        ],
    )
    def test_what_declares_itself(self, head: str) -> None:
        """XML and HTML."""
        assert recorded(f"{head}é".encode("latin-1"), "text/xml") == f"{head}é"

    def test_a_form(self) -> None:
        """Its escapes are in the charset."""
        kind = "application/x-www-form-urlencoded; charset=iso-8859-1"
        assert recorded(b"a=%E9&b=\xe9", kind) == {"a": "é", "b": "é"}

    @pytest.mark.parametrize("limit", range(1, 12))
    def test_no_half_character(self, limit: int) -> None:
        """Where a body is cut."""
        for codec in ("utf-8", "utf-16-le", "shift_jis"):
            text = recorded("日本語".encode(codec), f"text/plain; charset={codec}", limit)
            assert "日本語".startswith(text.removesuffix("..."))

    @pytest.mark.parametrize(
        "name", ["zip", "x-unknown", "base64", "rot13", "bz2", "unicode_escape", "idna", "../x"]
    )
    def test_an_unknown_charset_is_named(self, name: str) -> None:
        """And what is a codec but no charset is unknown."""
        assert recorded(b"abc", f"text/plain; charset={name}") == f"<text/plain, {name}, 3 bytes>"

    def test_names_of_clients_are_not_looked_up(self) -> None:
        """Python remembers each one for ever."""
        known = len(encodings._cache)
        for number in range(500):
            recorded(b"abc", f"text/plain; charset=made-up-{number}")
        assert len(encodings._cache) == known


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
