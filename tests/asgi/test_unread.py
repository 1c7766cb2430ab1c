"""A request whose trace nobody uses is recorded from its facts, and reads the same as any other."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wherefrom import MemorySink, Settings, Trace, TraceClient, TraceMiddleware, current_span, current_trace
from wherefrom.sinks import BackgroundSink
from wherefrom.stores.sqlite.store import SQLiteStore

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MAPPED = {"X-Tenant-ID": "tenant", "X-Ünit": "unit"}

Headers = list[tuple[bytes, bytes]]
App = Callable[[Any, Any, Any], Any]


async def receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_message: Any) -> None:
    pass


async def plain(scope: Any, _receive: Any, send: Any) -> None:
    scope.pop("nothing", None)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answer"})


async def stream(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(3):
        await send({"type": "http.response.body", "body": b"chunk", "more_body": True})
    await send({"type": "http.response.body"})


async def from_file(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 206, "headers": []})
    await send({"type": "http.response.pathsend", "path": "/x"})


async def missing(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body"})


async def routed(scope: Any, _receive: Any, send: Any) -> None:
    scope["path_template"] = '/items/{item}"ü'
    await plain(scope, _receive, send)


def make_keeper() -> tuple[list[Any], App]:
    """An app, and a list of the traces that it keeps without using them."""
    kept: list[Any] = []

    async def keeping(scope: Any, receive: Any, send: Any) -> None:
        kept.append(scope["wherefrom.trace"])
        await plain(scope, receive, send)

    return kept, keeping


def make_scope(**changes: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "http_version": "1.1",
        "client": ("10.0.0.1", 1),
        "server": ("host", 80),
        "headers": [(b"host", b"example.org:80"), (b"user-agent", b'agent "\xff\\')],
        **changes,
    }


def without_times(trace: Trace) -> dict[str, Any]:
    """What is the same each time that a request is recorded."""
    found = trace.to_dict()
    del found["info"]["trace_id"], found["info"]["request_time"], found["info"]["execution_duration_ms"]
    if found["info"]["client_request_id"] != "r-1":
        assert len(found["info"].pop("client_request_id")) == 36
    (root,) = found["data"]["spans"]
    assert ("wherefrom.part" in found["info"]["trace_metadata"]) is bool(root["parent_span_id"])
    found["info"]["trace_metadata"].pop("wherefrom.part", None)
    for name in ("span_id", "trace_id", "start_time_unix_nano", "end_time_unix_nano"):
        assert root.pop(name)
    root["attributes"] = dict(sorted(root["attributes"].items()))
    del root["attributes"]["mlflow.traceRequestId"]
    for name in ("wherefrom.time_to_first_byte_ms", "wherefrom.response.longest_gap_ms"):
        if name in root["attributes"]:
            assert float(root["attributes"].pop(name)) >= 0
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(tmp_path_factory.mktemp("unread") / "traces.db")) as store:
        yield store


async def record(app: App, scope: dict[str, Any], store: SQLiteStore, *, uses: bool, **options: Any) -> Trace:
    """The trace of one request, as it is read back from a store."""

    async def using(scope: Any, receive: Any, send: Any) -> None:
        trace = current_trace()
        assert trace is not None
        assert trace.info.trace_id
        await app(scope, receive, send)

    queue = BackgroundSink(store, flush_interval_ms=1)
    settings = Settings(store="none", header_metadata=MAPPED, **options)
    middleware = TraceMiddleware(using if uses else app, settings=settings, sink=queue)
    await middleware({**scope, "headers": [*scope["headers"]]}, receive, send)
    assert queue.close()
    (trace,) = TraceClient(store).search_traces()
    store.delete("default", trace_ids=[trace.info.trace_id])
    return trace


SCOPES: dict[str, dict[str, Any]] = {
    "bare": {"headers": []},
    "ends": {},
    "unknown method": {"method": "BREW\udcff"},
    "post": {"method": "POST"},
    "unicode path": {"path": "/größe/東京/😀"},
    "nul in the path": {"path": "/a\0b"},
    "surrogate in the path": {"path": "/a\udcffb"},
    "quotes in the path": {"path": '/a"b\\c'},
    "long path": {"path": "/" + "x" * 5000},
    "no ends": {"client": None, "server": None, "headers": []},
    "caller": {"headers": [(b"traceparent", PARENT)]},
    "caller of a later version": {"headers": [(b"traceparent", b"01" + PARENT[2:] + b"-more")]},
    "caller with spaces": {"headers": [(b"traceparent", b" " + PARENT + b"\t")]},
    "caller of zeros": {"headers": [(b"traceparent", PARENT[:3] + b"0" * 32 + PARENT[35:])]},
    "caller that ends in zeros": {"headers": [(b"traceparent", PARENT[:19] + b"0" * 16 + PARENT[35:])]},
    "no caller": {"headers": [(b"traceparent", b"x" * 55)]},
    "dashes elsewhere": {"headers": [(b"traceparent", b"00-" + b"a" * 31 + b"-" + b"b" * 17 + b"-01")]},
    "two callers": {"headers": [(b"traceparent", PARENT), (b"traceparent", PARENT)]},
    "ids": {"headers": [(b"x-request-id", b"r-1"), (b"x-session-id", b"s"), (b"x-user-id", b"u\xe9")]},
    "refused": {"headers": [(b"x-request-id", b"\x00"), (b"x-session-id", b""), (b"x-user-id", b"x" * 257)]},
    "mapped": {"headers": [(b"x-tenant-id", b'acme "\\'), (b"x-session-id", b"s")]},
}
APPS = {"plain": plain, "stream": stream, "file": from_file, "missing": missing, "routed": routed}


@pytest.mark.parametrize(
    "options", [{}, {"upstream": "continue"}, {"upstream": "ignore"}, {"user_hash_key": "k"}]
)
@pytest.mark.parametrize("changes", SCOPES.values(), ids=SCOPES)
async def test_a_trace_that_nobody_used(
    changes: dict[str, Any], options: dict[str, Any], store: SQLiteStore
) -> None:
    """Is the same as one that the app looked at."""
    scope = make_scope(**changes)
    for app in APPS.values():
        unused = await record(app, scope, store, uses=False, **options)
        used = await record(app, scope, store, uses=True, **options)
        assert without_times(unused) == without_times(used)
        if "upstream" in options and changes.get("headers") == [(b"traceparent", PARENT)]:
            joins = options["upstream"] == "continue"
            assert (unused.info.trace_id == "tr-" + PARENT[3:35].decode()) is joins
            assert unused.info.trace_id == used.info.trace_id or not joins


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(
    st.text(min_size=1, max_size=30),
    st.lists(st.tuples(st.sampled_from([b"traceparent", b"x-user-id", b"host"]), st.binary(max_size=60))),
)
async def test_whatever_a_client_sends(store: SQLiteStore, path: str, headers: Headers) -> None:
    """Both ways agree on any path and headers."""
    scope = make_scope(path=path, headers=headers)
    unused = await record(plain, scope, store, uses=False)
    used = await record(plain, scope, store, uses=True)
    assert without_times(unused) == without_times(used)


async def test_what_is_read_later_is_what_was_recorded(store: SQLiteStore) -> None:
    """A task that outlives the request gets a copy: the same ids, and changes that reach nobody."""
    kept: list[Any] = []

    async def keeping(scope: Any, receive: Any, send: Any) -> None:
        kept.extend((scope["wherefrom.trace"], current_span()))
        await plain(scope, receive, send)

    headers = [(b"x-session-id", b"s"), (b"x-request-id", b"r-1")]
    trace = await record(keeping, make_scope(headers=headers), store, uses=False)
    live, root = kept
    assert not live.is_read
    assert (live.info.trace_id, root.span_id) == (trace.info.trace_id, trace.data.spans[0].span_id)
    assert live == trace
    root.set_attribute("late", 1)
    root.name = "late"
    live.add_tags({"late": "2"})
    assert live.info.tags["late"] == "2"
    assert live.info.client_request_id == "r-1"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        live.nothing  # noqa: B018


@pytest.mark.parametrize(
    "options", [{"sample_rate": 0, "keep_errors": False}, {}], ids=["dropped", "nowhere"]
)
async def test_what_is_read_later_of_a_trace_that_went_nowhere(options: dict[str, Any]) -> None:
    """Ids, duration and state are there for logs, whatever is stored."""
    kept, keeping = make_keeper()
    headers = [(b"x-session-id", b"s"), (b"x-request-id", b"r-1")]
    await TraceMiddleware(keeping, settings=Settings(store="none", **options))(
        make_scope(headers=headers), receive, send
    )
    (live,) = kept
    assert (live.info.client_request_id, live.info.trace_metadata["mlflow.trace.session"]) == ("r-1", "s")
    assert (live.info.state, live.root.end_time_ns >= live.root.start_time_ns) == ("OK", True)
    assert live.data.spans == [live.root]


async def test_a_later_span_is_linked_to_it(tmp_path: Path) -> None:
    """A span that begins after the request is a trace of its own, though nobody used that of the request."""
    kept, keeping = make_keeper()
    with closing(SQLiteStore(tmp_path / "traces.db")) as store:
        queue = BackgroundSink(store)
        await TraceMiddleware(keeping, settings=Settings(store="none"), sink=queue)(
            make_scope(), receive, send
        )
        (live,) = kept
        span = live.start_span("late")
        span.end()
        assert queue.close()
        late, request = sorted(TraceClient(store).search_traces(), key=lambda found: found.info.name == "GET")
        assert [found.name for found in late.data.spans + request.data.spans] == ["late", "GET"]
        (link,) = late.data.spans[0].links
        assert (link["trace_id"], link["span_id"]) == (
            request.info.trace_id,
            request.data.spans[0].span_id,
        )


async def test_another_sink_behind_a_queue_gets_traces() -> None:
    """An exporter reads no records: the queue makes traces of them."""

    sink = MemorySink()
    queue = BackgroundSink(sink)
    await TraceMiddleware(plain, settings=Settings(store="none"), sink=queue)(make_scope(), receive, send)
    assert queue.close()
    (trace,) = sink.traces
    assert trace.data.spans[0].attributes["url.path"] == "/"
    assert trace.info.source is not None


async def test_threads_that_use_it_first_at_the_same_time(store: SQLiteStore) -> None:
    """Get the same trace and root span, and nothing that one of them records is lost."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            both = threading.Barrier(4)

            async def threaded(scope: Any, receive: Any, send: Any, both: Any = both) -> None:
                trace, span = scope["wherefrom.trace"], current_span()
                assert span is not None

                def use(number: int) -> tuple[int, int]:
                    both.wait()
                    if number % 2:
                        span.set_attribute(f"own {number}", number)
                    else:
                        trace.root.set_attribute(f"own {number}", number)
                    return id(trace.info), id(trace.root)

                found = await asyncio.gather(*(asyncio.to_thread(use, number) for number in range(4)))
                assert len(set(found)) == 1
                await plain(scope, receive, send)

            trace = await record(threaded, make_scope(), store, uses=False)
            attributes = trace.data.spans[0].attributes
            assert [attributes.get(f"own {number}") for number in range(4)] == [0, 1, 2, 3]
    finally:
        sys.setswitchinterval(before)
