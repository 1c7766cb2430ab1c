"""``inject``, ``extract`` and ``start_trace``: the trace context in headers, with real clients."""

from __future__ import annotations

import asyncio
import email.message
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import celery
import httpx
import pytest
import requests
from aiohttp import web
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from requests.structures import CaseInsensitiveDict
from starlette.datastructures import MutableHeaders
from werkzeug.datastructures import Headers as WerkzeugHeaders

import wherefrom
from wherefrom import MemorySink, Settings, SpanContext, Trace, TraceMiddleware, extract, inject, start_trace
from wherefrom.context import trace_var
from wherefrom.model import Source
from wherefrom.stores import open_store
from wherefrom.tracing.recorder import Recorder

from .test_decorator import default_recorder, sink

__all__ = ["sink"]

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
STALE = f"00-{'1' * 32}-{'2' * 16}-01"
CALLER = SpanContext(TRACE, SPAN, 1)


@contextmanager
def recording(**settings: Any) -> Iterator[MemorySink]:
    found = MemorySink()
    with default_recorder(Recorder(Settings(store="none", **settings), Source({}), found)):
        yield found


def expected() -> str:
    trace, span = wherefrom.current_trace(), wherefrom.current_span()
    assert trace is not None
    assert span is not None
    return f"00-{trace.info.trace_id.removeprefix('tr-')}-{span.span_id}-03"


# --- inject -------------------------------------------------------------------------------------------------

CARRIERS: list[Callable[[list[tuple[str, str]]], Any]] = [
    dict,
    list,
    lambda pairs: [list(pair) for pair in pairs],
    lambda pairs: {name.encode(): value.encode() for name, value in pairs},
    lambda pairs: {name: value.encode() for name, value in pairs},
    lambda pairs: [(name.encode(), value.encode()) for name, value in pairs],
    lambda pairs: [(name, value.encode()) for name, value in pairs],
    httpx.Headers,
    CIMultiDict,
    CaseInsensitiveDict,
    WerkzeugHeaders,
    lambda pairs: MutableHeaders(raw=[(name.lower().encode(), value.encode()) for name, value in pairs]),
    lambda pairs: message_of(pairs),
]


def message_of(pairs: list[tuple[str, str]]) -> email.message.Message:
    message = email.message.Message()
    for name, value in pairs:
        message[name] = value
    return message


def pairs_of(carrier: Any) -> list[tuple[Any, Any]]:
    items = getattr(carrier, "multi_items", None) or getattr(carrier, "items", None)
    return [tuple(pair) for pair in (carrier if items is None else items())]


@pytest.mark.parametrize("make", CARRIERS)
def test_the_current_span_is_added_to_headers_of_any_kind(
    make: Callable[[list[tuple[str, str]]], Any], sink: MemorySink
) -> None:
    """In place, once, in the types that are there; a stale context goes, in whatever case it was written."""
    carrier = make([("Accept", "*/*"), ("Traceparent", STALE), ("TraceState", "old=1"), ("X-Own", "1")])
    types = {(type(name), type(value)) for name, value in pairs_of(carrier)}
    with wherefrom.start_span("caller"):
        assert inject(carrier) is carrier
        assert inject(carrier) is carrier
        sent = expected()
    pairs = pairs_of(carrier)
    assert {(type(name), type(value)) for name, value in pairs} == types
    texts = [
        tuple(item.decode() if isinstance(item, bytes) else item.lower() for item in pair) for pair in pairs
    ]
    assert sorted((name.lower(), value) for name, value in texts) == [
        ("accept", "*/*"),
        ("traceparent", sent),
        ("x-own", "1"),
    ]
    context = extract(carrier)
    assert context is not None
    assert context.trace_id == sink.traces[0].info.trace_id.removeprefix("tr-")


@pytest.mark.parametrize("make", CARRIERS)
def test_outside_of_a_trace_headers_stay_as_they_are(make: Callable[[list[tuple[str, str]]], Any]) -> None:
    """Also a context that somebody else put there."""
    carrier = make([("traceparent", STALE)])
    before = pairs_of(carrier)
    inject(carrier)
    assert pairs_of(carrier) == before
    assert inject() == {}


@pytest.mark.parametrize(
    "carrier",
    [
        (("accept", "*/*"),),
        MappingProxyType({}),
        CIMultiDictProxy(CIMultiDict()),
        "text",
        b"",
        bytearray(),
        5,
        {"a"},
        iter([]),
    ],
    ids=lambda carrier: type(carrier).__name__,
)
def test_what_cannot_be_added_to_is_refused(carrier: Any) -> None:
    """Within a trace and outside, so that it is found before it matters."""
    with pytest.raises(TypeError, match=r"inject\(\) takes a dict or a list of pairs to add to, not"):
        inject(carrier)


def test_headers_of_the_app_are_kept(sink: MemorySink) -> None:
    """Its own baggage, request id, session and user; of ours what is not there."""
    with start_trace(
        "job", upstream={"traceparent": PARENT, "baggage": "a=1", "X-User-ID": "ada"}, join=True
    ):
        wherefrom.update_current_trace(session_id="chat-7", client_request_id="r-1")
        assert inject(identity=True).items() >= {
            ("baggage", "a=1"),
            ("X-Request-ID", "r-1"),
            ("X-Session-ID", "chat-7"),
            ("X-User-ID", "ada"),
        }
        own = {"Baggage": "b=2", "x-user-id": "bob"}
        assert inject(own, identity=True).keys() == {
            "Baggage", "x-user-id", "X-Request-ID", "X-Session-ID", "traceparent"
        }  # fmt: skip
        assert own["x-user-id"] == "bob"
        assert inject().keys() == {"traceparent", "baggage"}


def test_a_list_may_hold_what_is_no_header(sink: MemorySink) -> None:
    """It is left where it is."""
    carrier: list[Any] = [None, ("a",), "ab", ("traceparent", STALE), 5]
    with wherefrom.start_span("caller"):
        inject(carrier)
        assert carrier == [None, ("a",), "ab", 5, ("traceparent", expected())]


# --- extract ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [*CARRIERS, tuple, CIMultiDictProxy, MappingProxyType, iter])
def test_the_callers_span_is_read_from_headers_of_any_kind(make: Any) -> None:
    """Text and bytes, in any case of the name."""
    pairs: Any = [("Accept", "*/*"), ("TraceParent", PARENT), ("tracestate", "a=1")]
    if make is CIMultiDictProxy:
        pairs = CIMultiDict(pairs)
    if make is MappingProxyType:
        pairs = dict(pairs)
    assert extract(make(pairs)) == SpanContext(TRACE, SPAN, 1, (("a", "1"),))


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": [PARENT]},
        {"traceparent": [PARENT.encode()], "other": None},
        [("traceparent", bytearray(PARENT, "ascii")), (None, 1), ("x", None)],
    ],
)
def test_values_may_be_lists_of_values(headers: Any) -> None:
    """As gateways and query parsers give them."""
    assert extract(headers) == CALLER


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": PARENT, "Traceparent": PARENT},
        CIMultiDict([("traceparent", PARENT), ("traceparent", STALE)]),
        {"traceparent": [PARENT, PARENT]},
        {"traceparent": PARENT + "x"},
        {"traceparent": "\ud800" + PARENT},
        {"traceparent": 5},
        ["traceparent", PARENT],
    ],
)
def test_what_is_not_one_valid_traceparent_is_none(headers: Any) -> None:
    """As in a request."""
    assert extract(headers) is None


class Hostile:
    @property
    def items(self) -> Any:
        raise RuntimeError

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary() | st.none(), inner),
    )
)
def test_whatever_is_given_nothing_is_raised(headers: Any) -> None:
    """A producer may have put anything into its message."""
    assert extract(headers) is None
    with recording() as found, start_trace("job", upstream=headers):
        pass
    assert len(found.traces) == 1


@pytest.mark.parametrize("headers", [Hostile(), None, object(), 5], ids=type)
def test_objects_that_fail_are_as_no_headers(headers: Any) -> None:
    """Also ``None``, which many clients give for no headers."""
    assert extract(headers) is None


# --- start_trace --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("upstream", "join", "joins", "links"),
    [
        ("link", None, False, True),
        ("link", True, True, False),
        ("continue", None, True, False),
        ("continue", False, False, True),
        ("ignore", None, False, False),
    ],
)
@pytest.mark.parametrize(
    "headers", [{"traceparent": PARENT, "baggage": "a=1"}, CALLER], ids=["dict", "context"]
)
def test_a_job_is_linked_to_its_sender_or_part_of_its_trace(
    upstream: str, join: bool | None, joins: bool, links: bool, headers: Any
) -> None:
    """As the setting ``upstream`` has it for requests, or as the call says."""
    with recording(upstream=upstream) as found:
        with start_trace("job", upstream=headers, join=join, span_type="TASK", attributes={"queue": "q"}):
            with wherefrom.start_span("step"):
                pass
            baggage = inject().get("baggage")
        assert trace_var.get() is None
    (trace,) = found.traces
    root, step = trace.data.spans
    assert (root.name, root.span_type, root.attributes["queue"]) == ("job", "TASK", "q")
    assert (root.trace_id == f"tr-{TRACE}") is joins
    assert root.parent_id == (SPAN if joins else None)
    assert [(link["trace_id"], link["span_id"]) for link in root.links] == [(f"tr-{TRACE}", SPAN)] * links
    assert step.parent_id == root.span_id
    assert baggage == ("a=1" if joins and isinstance(headers, dict) else None)


def test_the_ids_of_request_session_and_user_are_recorded() -> None:
    """The user hashed where that is set; values that are not valid in headers are not."""
    headers = [(b"x-request-id", b"r-1"), (b"x-session-id", b"s"), (b"x-user-id", b"ada")]
    with recording() as found, start_trace("job", upstream=headers):
        assert wherefrom.context.request_id == "r-1"
    info = found.traces[0].info
    assert (info.trace_metadata["mlflow.trace.session"], info.trace_metadata["mlflow.trace.user"]) == (
        "s",
        "ada",
    )
    with recording(user_hash_key="k") as found, start_trace("job", upstream=headers):
        pass
    assert len(found.traces[0].info.trace_metadata["mlflow.trace.user"]) == 32
    with recording() as found, start_trace("job", upstream={"X-Session-ID": "a\nb", "X-User-ID": "x" * 257}):
        pass
    assert not {"mlflow.trace.session", "mlflow.trace.user"} & found.traces[0].info.trace_metadata.keys()


def test_it_is_a_trace_of_its_own_inside_of_another(sink: MemorySink) -> None:
    """What was current is current again; an exception is recorded and propagates."""
    with wherefrom.start_span("outer") as outer:
        with pytest.raises(ValueError, match="so"), start_trace("job"):
            raise ValueError("so")
        assert wherefrom.current_span() is outer
    job, around = sink.traces
    assert (job.info.name, job.info.state) == ("job", "ERROR")
    assert (around.info.name, around.info.state) == ("outer", "OK")


def test_in_the_trace_of_the_sender_it_is_a_span(sink: MemorySink) -> None:
    """As where a queue runs its jobs at once, in the sender."""
    with wherefrom.start_span("outer"), start_trace("job", upstream=inject(), join=True):
        pass
    (trace,) = sink.traces
    assert [span.name for span in trace.data.spans] == ["outer", "job"]


def test_a_job_that_joins_a_trace_of_the_same_store_loses_nothing_of_it(tmp_path: Path) -> None:
    """The request's user and session stay, as do the spans of both."""
    store = open_store(f"sqlite:///{tmp_path / 'traces.db'}")
    with recording() as found:
        with wherefrom.start_span("request"):
            wherefrom.update_current_trace(user="ada", session_id="s", request_preview="why")
            headers = inject()
        with start_trace("job", upstream=headers, join=True):
            pass
    for trace in found.traces:
        store.write([trace])
    (kept,) = wherefrom.TraceClient(store).search_traces()
    assert [span.name for span in kept.data.spans] == ["request", "job"]
    assert kept.info.trace_metadata["mlflow.trace.user"] == "ada"
    assert kept.info.trace_metadata["mlflow.trace.session"] == "s"
    assert kept.info.request_preview == "why"
    store.close()


# --- Real clients -------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that keeps the headers of its requests."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/", seen
        listening.shutdown()
        thread.join()


def test_requests_sends_the_trace_on(server: tuple[str, list[dict[str, str]]], sink: MemorySink) -> None:
    """In the headers of a call, and of a session by its ``auth`` hook."""
    url, seen = server
    with requests.Session() as session, wherefrom.start_span("caller"):
        session.get(url, headers=inject({"Accept": "text/plain"}))
        session.auth = lambda request: (inject(request.headers), request)[1]
        session.get(url)
        sent = expected()
    assert [headers["traceparent"] for headers in seen] == [sent, sent]
    assert seen[0]["accept"] == "text/plain"


async def test_aiohttp_sends_the_trace_on_and_reads_it(sink: MemorySink) -> None:
    """A trace config adds the headers to every request of a session, also behind a redirect."""
    seen: list[SpanContext | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(extract(request.headers))
        if request.path == "/":
            raise web.HTTPFound("/there")
        return web.Response()

    async def send_on(_session: object, _context: object, params: aiohttp.TraceRequestStartParams) -> None:
        inject(params.headers)

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    config = aiohttp.TraceConfig()
    config.on_request_start.append(send_on)
    with wherefrom.start_span("caller") as span:
        async with aiohttp.ClientSession(trace_configs=[config]) as session:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            assert (await session.get(url)).status == 200
    await runner.cleanup()
    assert [context and context.span_id for context in seen] == [span.span_id] * 2


class TracedTask(celery.Task):  # type: ignore[misc]
    """As in the documentation."""

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        task = celery.current_task
        received = (task and task.request.headers) or {}
        headers = inject({**received, **(options.get("headers") or {})}, identity=True)
        return super().apply_async(args, kwargs, **{**options, "headers": headers})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.request.called_directly:
            return super().__call__(*args, **kwargs)
        with start_trace(self.name, upstream=self.request.headers):
            return super().__call__(*args, **kwargs)


@pytest.fixture
def logging_of_the_tests() -> Iterator[None]:
    """A worker sets the level and handlers of the root logger, unless somebody else does."""

    def keep(**_: object) -> None: ...

    setup_logging.connect(keep)
    yield
    setup_logging.disconnect(keep)


@pytest.mark.usefixtures("logging_of_the_tests")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_celery_worker_goes_on_with_the_request(sink: MemorySink) -> None:
    """A task is linked to the request that sent it, with its session and user; a retry and a chain too."""
    app = celery.Celery("t", broker="memory://", backend="cache+memory://", task_cls=TracedTask)
    app.conf.task_default_queue = "carriers"  # the broker is one for the process
    app.set_default()

    @app.task(name="resize", bind=True, max_retries=1)  # type: ignore[untyped-decorator]
    def resize(self: Any, width: int) -> int:
        with wherefrom.start_span("read"):
            pass
        if width == 0 and self.request.retries == 0:
            raise self.retry(countdown=0)
        return width

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        sent.append(resize.delay(3))
        sent.append(resize.delay(0))
        sent.append((resize.s(1) | resize.si(2)).apply_async())
        assert resize(7) == 7
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    sent: list[Any] = []
    requests_sink = MemorySink()
    asgi = TraceMiddleware(handler, sink=requests_sink)

    async def ask() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url="http://test") as client:
            await client.get("/", headers={"X-User-ID": "ada", "X-Session-ID": "s"})

    asyncio.run(ask())
    with start_worker(app, perform_ping_check=False, pool="solo"):
        assert [result.get(timeout=60) for result in sent[:2]] == [3, 0]
        sent[2].get(timeout=60)
    (asked,) = requests_sink.traces
    assert [span.name for span in asked.data.spans] == ["GET", "read"]
    assert [trace.info.name for trace in sink.traces] == ["resize"] * 5
    known = {asked.info.trace_id, *(trace.info.trace_id for trace in sink.traces)}
    for trace in sink.traces:
        assert [span.name for span in trace.data.spans] == ["resize", "read"]
        assert trace.info.trace_metadata["mlflow.trace.user"] == "ada"
        assert trace.info.client_request_id == asked.info.client_request_id
        assert linked(trace) in known - {trace.info.trace_id}


def linked(trace: Trace) -> str:
    (link,) = trace.data.spans[0].links
    return str(link["trace_id"])
