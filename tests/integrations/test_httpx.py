"""httpx: what goes out, and the span that is left."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import wherefrom
from wherefrom import MemorySink, Span, context, current_span, current_trace, start_span, update_current_trace
from wherefrom.integrations.httpx import AsyncTraceTransport, TraceTransport
from wherefrom.model import SpanStatusCode
from wherefrom.process import ledger
from wherefrom.propagation import BaggageMember
from wherefrom.tracing.live import LiveTrace

from .apps import child, traced, within_a_request

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OURS = {
    "traceparent",
    "tracestate",
    "baggage",
    "x-request-id",
    "x-session-id",
    "x-user-id",
    "x-correlation-id",
}


class Service:
    """The other service: records requests and responds as programmed."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(answer)

    def sent(self, number: int = 0) -> dict[str, str]:
        """The headers of a request that are ours."""
        return {name: value for name, value in self.requests[number].headers.items() if name in OURS}

    def client(self, **options: Any) -> httpx.AsyncClient:
        forward_to = options.pop("forward_to", ())
        transport = AsyncTraceTransport(httpx.MockTransport(self), forward_to=forward_to)
        return httpx.AsyncClient(transport=transport, **options)

    async def get(self, url: str = "http://api.test/", **options: Any) -> None:
        headers = options.pop("headers", None)
        async with self.client(**options) as http:
            await http.get(url, headers=headers)


def live() -> LiveTrace:
    trace = current_trace()
    assert trace is not None
    return trace


class TestTheSpan:
    async def test_in_opentelemetry_s_words(self, sink: MemorySink) -> None:
        """A request is a CLIENT span below the current one, in the HTTP semantic conventions."""
        service = Service(httpx.Response(201, extensions={"http_version": b"HTTP/2"}))

        async def work() -> None:
            with start_span("outer"):
                async with service.client() as http:
                    await http.post("https://api.test:8443/v1/things?page=2#top", json={})

        trace = await within_a_request(work, sink)
        _, outer, span = trace.data.spans
        assert (span.name, span.span_type, span.parent_id) == ("POST", "CLIENT", outer.span_id)
        assert span.attributes == {
            "http.request.method": "POST",
            "url.full": "https://api.test:8443/v1/things?page=2",
            "server.address": "api.test",
            "server.port": 8443,
            "http.response.status_code": 201,
            "network.protocol.version": "2",
        }
        assert span.status.code is SpanStatusCode.OK
        assert span.end_time_ns is not None
        assert outer.end_time_ns is not None
        assert span.end_time_ns <= outer.end_time_ns

    @pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443), ("odd", None)])
    async def test_the_port_is_the_scheme_s(self, sink: MemorySink, scheme: str, port: int | None) -> None:
        """A port that the URL does not name is that of its scheme."""
        transport = AsyncTraceTransport(httpx.MockTransport(Service()))

        async def work() -> None:
            response = await transport.handle_async_request(httpx.Request("GET", f"{scheme}://api.test/"))
            await response.aread()

        trace = await within_a_request(work, sink)
        assert child(trace).attributes.get("server.port") == port

    async def test_an_odd_method_gives_no_name(self, sink: MemorySink) -> None:
        """A method that HTTP does not know is ``_OTHER``, and the span is named ``HTTP``."""

        async def work() -> None:
            async with Service().client() as http:
                await http.request("BREW", "http://api.test/")

        span = child(await within_a_request(work, sink))
        assert span.name == "HTTP"
        assert span.attributes["http.request.method"] == "_OTHER"
        assert span.attributes["http.request.method_original"] == "BREW"

    @pytest.mark.parametrize("status", [400, 404, 500, 503])
    async def test_4xx_and_5xx_are_errors_of_the_call(self, sink: MemorySink, status: int) -> None:
        """Both are errors of the call, and neither is one of the request around it."""
        trace = await within_a_request(Service(status).get, sink)
        span = child(trace)
        assert (span.status.code, span.status.description) == (SpanStatusCode.ERROR, f"HTTP {status}")
        assert span.attributes["error.type"] == str(status)
        assert trace.info.state == "OK"

    @pytest.mark.parametrize(
        ("error", "name"),
        [
            (httpx.ConnectTimeout("too slow"), "httpx.ConnectTimeout"),
            (ValueError("odd"), "ValueError"),
            (asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
        ],
    )
    async def test_exceptions_are_recorded_and_raised_as_they_are(
        self, sink: MemorySink, error: BaseException, name: str
    ) -> None:
        """What the transport raises reaches the app unchanged, and the span has ended with it."""

        async def work() -> None:
            with pytest.raises(type(error)) as raised:
                await Service(error).get()
            assert raised.value is error
            assert current_span() is live().root

        span = child(await within_a_request(work, sink))
        assert span.status.code is SpanStatusCode.ERROR
        assert span.attributes["error.type"] == name
        assert [event.name for event in span.events] == ["exception"]
        assert span.end_time_ns is not None

    async def test_it_is_current_while_the_transport_works(self, sink: MemorySink) -> None:
        """What the transport itself does or logs is below the call, and what comes after is not."""
        seen: list[Any] = []

        def answer(_request: httpx.Request) -> httpx.Response:
            seen.append(current_span())
            return httpx.Response(200)

        async def work() -> None:
            async with httpx.AsyncClient(transport=AsyncTraceTransport(httpx.MockTransport(answer))) as http:
                await http.get("http://api.test/")
            assert current_span() is live().root

        trace = await within_a_request(work, sink)
        assert seen == [child(trace)]

    async def test_each_hop_of_a_redirect_is_a_span(self, sink: MemorySink) -> None:
        """Both requests are there, each with a ``traceparent`` of its own span."""
        moved = httpx.Response(302, headers={"Location": "http://elsewhere.test/b"})
        service = Service(moved, 200)
        trace = await within_a_request(lambda: service.get(follow_redirects=True), sink)
        spans = trace.data.spans[1:]
        assert [span.attributes["server.address"] for span in spans] == ["api.test", "elsewhere.test"]
        parents = [service.sent(number)["traceparent"].split("-")[2] for number in (0, 1)]
        assert parents == [span.span_id for span in spans]


class TestBodies:
    async def test_the_span_ends_with_a_streamed_body(self, sink: MemorySink) -> None:
        """Not the head of the response ends the call, but its last byte."""

        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            await asyncio.sleep(0.03)
            yield b"two"

        service = Service(httpx.Response(200, content=chunks()))

        async def work() -> None:
            async with service.client() as http, http.stream("GET", "http://api.test/") as response:
                (span,) = live().data.spans[1:]
                assert span.end_time_ns is None
                assert [chunk async for chunk in response.aiter_bytes()] == [b"one", b"two"]
                assert span.end_time_ns is not None

        span = child(await within_a_request(work, sink))
        assert span.end_time_ns is not None
        assert span.end_time_ns - span.start_time_ns >= 30_000_000
        assert span.status.code is SpanStatusCode.OK

    async def test_or_when_it_is_closed(self, sink: MemorySink) -> None:
        """A body that is not read to its end ends the call when it is closed, which is no error."""

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"more"

        service = Service(*(httpx.Response(200, content=endless()) for _ in range(2)))

        async def work() -> None:
            async with service.client() as http:
                async with http.stream("GET", "http://api.test/") as response:
                    async for _ in response.aiter_bytes():
                        break
                async with http.stream("GET", "http://api.test/"):
                    pass

        trace = await within_a_request(work, sink)
        assert [(span.status.code, span.end_time_ns is None) for span in trace.data.spans[1:]] == [
            (SpanStatusCode.OK, False)
        ] * 2

    async def test_a_body_that_breaks_off(self, sink: MemorySink) -> None:
        """An error in the middle of a body is the call's, and raised as it was."""
        error = httpx.ReadError("gone")

        async def broken() -> AsyncIterator[bytes]:
            yield b"one"
            raise error

        async def work() -> None:
            with pytest.raises(httpx.ReadError) as raised:
                await Service(httpx.Response(200, content=broken())).get()
            assert raised.value is error

        span = child(await within_a_request(work, sink))
        assert span.attributes["error.type"] == "httpx.ReadError"
        assert span.status.code is SpanStatusCode.ERROR

    async def test_a_body_that_cannot_be_closed(self, sink: MemorySink) -> None:
        """What closing raises is the call's error too."""
        error = httpx.CloseError("stuck")

        class Stuck(httpx.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield b""

            async def aclose(self) -> None:
                raise error

        async def work() -> None:
            async with Service(httpx.Response(200, stream=Stuck())).client() as http:
                with pytest.raises(httpx.CloseError):
                    async with http.stream("GET", "http://api.test/"):
                        pass

        assert child(await within_a_request(work, sink)).attributes["error.type"] == "httpx.CloseError"

    async def test_a_body_that_outlives_the_request(self, sink: MemorySink) -> None:
        """A call whose body is read after the request's end is stored late, in the same trace."""
        kept: list[httpx.Response] = []

        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"

        async def work() -> None:
            http = Service(httpx.Response(200, content=chunks())).client()
            kept.append(await http.send(http.build_request("GET", "http://api.test/"), stream=True))

        trace = await within_a_request(work, sink)
        await kept[0].aread()
        assert len(sink.traces) == 1
        assert [span.end_time_ns is None for span in trace.data.spans] == [False, False]


class TestWhatGoesOut:
    async def test_the_trace_goes_to_every_host(self, sink: MemorySink) -> None:
        """``traceparent`` has the trace and the call's span, and nothing about the user."""
        service = Service()
        headers = {"X-Request-ID": "r1", "X-Session-ID": "s1", "X-User-ID": "u1"}
        trace = await within_a_request(service.get, sink, headers=headers)
        assert service.sent() == {"traceparent": f"00-{trace.info.trace_id[3:]}-{child(trace).span_id}-03"}

    async def test_a_linked_caller_s_state_stays_here(self, sink: MemorySink) -> None:
        """``upstream=link`` restarts the trace: nothing of the caller's goes on (§3.4, Restart trace)."""
        service = Service()
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "foo=1", "baggage": "a=1"}
        await within_a_request(service.get, sink, headers=headers)
        assert set(service.sent()) == {"traceparent"}
        assert TRACE not in service.sent()["traceparent"]

    @pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
    async def test_a_joined_caller_s_goes_on(self, sink: MemorySink, flags: str) -> None:
        """``upstream=continue`` carries on trace id, flags, ``tracestate`` and baggage."""
        service = Service()
        headers = {
            "traceparent": f"00-{TRACE}-{SPAN}-{flags}",
            "tracestate": "foo=1 , bar=2",
            "baggage": "tenant=t%201;level=gold, bad key=1,b=",
        }
        await within_a_request(service.get, sink, headers=headers, upstream="continue", keep_slower_than_ms=0)
        parent = service.sent()["traceparent"].split("-")
        assert (parent[0], parent[1], parent[3]) == ("00", TRACE, flags)
        assert parent[2] == child(sink.traces[0]).span_id
        assert service.sent()["tracestate"] == "foo=1,bar=2"
        assert service.sent()["baggage"] == "tenant=t%201;level=gold,b="

    async def test_untrusted_callers_are_only_linked(self, sink: MemorySink) -> None:
        """Outside of ``trust_upstream`` not even ``continue`` carries anything on."""
        service = Service()
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "foo=1", "baggage": "a=1"}
        await within_a_request(
            service.get,
            sink,
            headers=headers,
            peer="192.0.2.1",
            upstream="continue",
            trust_upstream="10.0.0.0/8",
        )
        assert set(service.sent()) == {"traceparent"}
        assert sink.traces[0].data.spans[0].links[0]["span_id"] == SPAN

    async def test_the_app_s_own_baggage(self, sink: MemorySink) -> None:
        """What the app adds to the trace's baggage goes along; nothing that is unfit does."""
        service = Service()

        async def work() -> None:
            live().baggage += (BaggageMember("tenant", "ä, b"),)
            await service.get()
            live().baggage = (BaggageMember("not a token", "1"),)
            await service.get()

        await within_a_request(work, sink)
        assert service.sent()["baggage"] == "tenant=%C3%A4%2C%20b"
        assert "baggage" not in service.sent(1)

    @pytest.mark.parametrize(("rate", "flags"), [(0.0, "02"), (1.0, "03")])
    async def test_the_sampled_flag_is_the_decision_at_the_beginning(
        self, sink: MemorySink, rate: float, flags: str
    ) -> None:
        """Traces that may still be kept for an error do not set it."""
        service = Service()

        async def work() -> None:
            update_current_trace(state="ERROR")
            await service.get()

        await within_a_request(work, sink, sample_rate=rate)
        assert service.sent()["traceparent"].endswith(flags)

    async def test_the_user_s_own_traceparent_wins(self, sink: MemorySink) -> None:
        """A request that has one goes out with it, and with no state of another trace."""
        service = Service()
        own = f"00-{TRACE}-{SPAN}-00"
        await within_a_request(
            lambda: service.get(headers={"TraceParent": own}),
            sink,
            headers={"traceparent": f"00-{TRACE[::-1]}-{SPAN}-01", "tracestate": "foo=1"},
            upstream="continue",
        )
        assert service.sent() == {"traceparent": own}
        assert child(sink.traces[0]).span_type == "CLIENT"

    async def test_other_headers_of_the_user_win_too(self, sink: MemorySink) -> None:
        """A header that is there is neither changed nor doubled."""
        service = Service()
        own = {"Baggage": "mine=1", "X-Request-ID": "mine"}
        await within_a_request(
            lambda: service.get(headers=own, forward_to="api.test"),
            sink,
            headers={"traceparent": f"00-{TRACE}-{SPAN}-01", "baggage": "a=1", "X-Request-ID": "r1"},
            upstream="continue",
        )
        assert (service.sent()["baggage"], service.sent()["x-request-id"]) == ("mine=1", "mine")
        assert TRACE in service.sent()["traceparent"]

    async def test_the_request_of_the_user_is_not_touched(self, sink: MemorySink) -> None:
        """The app's request object is as it was; what goes out is another with the same body."""
        service = Service()

        async def body() -> AsyncIterator[bytes]:
            yield b"streamed"

        async def work() -> None:
            async with service.client(forward_to="api.test") as http:
                request = http.build_request("POST", "http://api.test/", content=body())
                before = request.headers.raw
                response = await http.send(request)
                assert response.request is request
                assert request.headers.raw == before

        await within_a_request(work, sink)
        assert service.requests[0].content == b"streamed"

    async def test_outside_of_a_trace_nothing_happens(self) -> None:
        """No trace, no span, no header, and not a request more."""
        service = Service()
        await service.get(forward_to="api.test")
        assert service.sent() == {}
        assert wherefrom.stats().recorded == 0

    async def test_a_traced_call_outside_of_a_request(self) -> None:
        """Where a trace is current it need not be a request's."""
        service = Service()
        with start_span("job") as span:
            await service.get()
        assert span.trace_id[3:] in service.sent()["traceparent"]


class TestIdentity:
    HEADERS = {"X-Request-ID": "r1", "X-Session-ID": "s1", "X-User-ID": "u1"}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("forward_to", "url", "told"),
        [
            ("api.test", "http://api.test/", True),
            (["other", "API.test."], "http://api.TEST:8000/", True),
            ("api.test", "http://evil-api.test/", False),
            ("api.test", "http://api.test.evil/", False),
            ("api.test", "http://sub.api.test/", False),
            ("api.test", "http://api.test@evil/", False),
            ([".test"], "http://api.test/", True),
            ([".api.test"], "http://api.test/", False),
            ([".api.test"], "http://evilapi.test/", False),
            (["10.0.0.1", "[::1]"], "http://[::1]:8000/", True),
            (["bücher.test"], "http://xn--bcher-kva.test/", True),
            (["xn--bcher-kva.test"], "http://bücher.test/", True),
            ((), "http://api.test/", False),
        ],
    )
    async def test_only_hosts_on_the_list_learn_who_asks(
        self, sink: MemorySink, forward_to: Any, url: str, told: bool
    ) -> None:
        """Exact names, or all names below ``.suffix``; neither case nor port nor userinfo changes that."""
        service = Service()
        await within_a_request(lambda: service.get(url, forward_to=forward_to), sink, headers=self.HEADERS)
        sent = service.sent()
        del sent["traceparent"]
        assert sent == ({name.lower(): value for name, value in self.HEADERS.items()} if told else {})

    async def test_a_redirect_to_a_stranger_tells_nothing(self, sink: MemorySink) -> None:
        """The ids do not follow a redirect away from the list."""
        service = Service(httpx.Response(307, headers={"Location": "http://evil/"}), 200)
        await within_a_request(
            lambda: service.get(forward_to="api.test", follow_redirects=True), sink, headers=self.HEADERS
        )
        assert set(service.sent()) > {"x-user-id"}
        assert set(service.sent(1)) == {"traceparent"}

    async def test_the_request_id_has_the_header_of_the_settings(self, sink: MemorySink) -> None:
        """``request_id_header`` names it both ways; what is not known is not sent."""
        service = Service()
        await within_a_request(
            lambda: service.get(forward_to="api.test"),
            sink,
            headers={"X-Correlation-ID": "c1"},
            request_id_header="X-Correlation-ID",
        )
        assert service.sent().keys() == {"traceparent", "x-correlation-id"}
        assert service.sent()["x-correlation-id"] == "c1"

    async def test_a_hashed_user_stays_hashed(self, sink: MemorySink) -> None:
        """With ``user_hash_key`` the name goes nowhere."""
        service = Service()
        trace = await within_a_request(
            lambda: service.get(forward_to="api.test"), sink, headers=self.HEADERS, user_hash_key="k"
        )
        assert service.sent()["x-user-id"] == trace.info.trace_metadata["mlflow.trace.user"] != "u1"

    @pytest.mark.parametrize(
        ("value", "sent"),
        [
            ("plain", True),
            ("Zoë Müller", True),
            ("x" * 256, True),
            ("x" * 257, False),
            ("a\r\nX-Admin: 1", False),
            ("a\nb", False),
            ("a\x85b", False),
            ("snow ☃", False),
            (" padded", False),
            ("padded ", False),
        ],
    )
    async def test_what_cannot_stand_in_a_header_is_left_out(
        self, sink: MemorySink, value: str, sent: bool
    ) -> None:
        """The app may give any session; one that would break the request, or be refused there, stays here."""
        service = Service()

        async def work() -> None:
            update_current_trace(session_id=value)
            await service.get(forward_to="api.test")

        await within_a_request(work, sink)
        raw = dict(service.requests[0].headers.raw).get(b"X-Session-ID")
        assert raw == (value.encode("latin-1") if sent else None)

    @pytest.mark.parametrize("entry", ["", ".", "http://api.test", "api.test:80", "*.api.test", "a b", "a/b"])
    def test_what_is_not_a_host_is_refused(self, entry: str) -> None:
        """An entry that could never match is an error at once."""
        with pytest.raises(ValueError, match="is not a host"):
            TraceTransport(forward_to=[entry])


class TestTransports:
    def test_the_synchronous_one(self) -> None:
        """``TraceTransport`` does for ``httpx.Client`` what the other does for ``httpx.AsyncClient``."""

        def chunks() -> Iterator[bytes]:
            yield b"one"

        service = Service(200, httpx.Response(404, content=chunks()), httpx.ConnectError("no"))
        transport = TraceTransport(httpx.MockTransport(service), forward_to="api.test")
        spans: list[Span] = []
        with start_span("job") as root, httpx.Client(transport=transport) as http:
            update_current_trace(session_id="s1")
            http.get("http://api.test/")
            http.get("http://api.test/")
            with pytest.raises(httpx.ConnectError):
                http.get("http://api.test/")
            spans += live().data.spans[1:]
        assert [span.parent_id for span in spans] == [root.span_id] * 3
        assert [span.status.code for span in spans] == ["OK", "ERROR", "ERROR"]
        assert all(span.end_time_ns for span in spans)
        assert service.sent()["x-session-id"] == "s1"
        http = httpx.Client(transport=TraceTransport(httpx.MockTransport(service)))
        http.get("http://api.test/")
        assert service.sent(3) == {}

    def test_synchronous_bodies(self) -> None:
        """They end the span at their end, when closed, and when they break."""

        def chunks() -> Iterator[bytes]:
            yield b"one"
            yield b"two"

        def broken() -> Iterator[bytes]:
            yield b"one"
            raise httpx.ReadError("gone")

        class Stuck(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                yield b""

            def close(self) -> None:
                raise httpx.CloseError("stuck")

        bodies: list[dict[str, Any]] = [
            {"content": chunks()},
            {"content": chunks()},
            {"content": broken()},
            {"stream": Stuck()},
        ]
        service = Service(*(httpx.Response(200, **body) for body in bodies))
        transport = TraceTransport(httpx.MockTransport(service))
        with start_span("job"), httpx.Client(transport=transport) as http:
            with http.stream("GET", "http://api.test/") as response:
                assert live().data.spans[1].end_time_ns is None
                assert response.read() == b"onetwo"
            with http.stream("GET", "http://api.test/"):
                pass
            with pytest.raises(httpx.ReadError):
                http.get("http://api.test/")
            with pytest.raises(httpx.CloseError), http.stream("GET", "http://api.test/"):
                pass
            spans = live().data.spans[1:]
        assert [span.attributes.get("error.type") for span in spans] == [
            None, None, "httpx.ReadError", "httpx.CloseError",
        ]  # fmt: skip
        assert all(span.end_time_ns for span in spans)

    async def test_what_is_wrapped_is_opened_and_closed(self) -> None:
        """Entering, leaving and closing reach the wrapped transport; without one, httpx's own is used."""
        calls: list[str] = []

        class Sync(httpx.BaseTransport):
            def __enter__(self) -> Self:
                calls.append("enter")
                return self

            def close(self) -> None:
                calls.append("close")

        class Async(httpx.AsyncBaseTransport):
            async def __aenter__(self) -> Self:
                calls.append("aenter")
                return self

            async def aclose(self) -> None:
                calls.append("aclose")

        with TraceTransport(Sync()):
            pass
        TraceTransport(Sync()).close()
        async with AsyncTraceTransport(Async()):
            pass
        await AsyncTraceTransport(Async()).aclose()
        assert calls == ["enter", "close", "close", "aenter", "aclose", "aclose"]
        TraceTransport().close()
        await AsyncTraceTransport().aclose()

    async def test_our_own_trouble_does_not_cost_the_request(self, sink: MemorySink) -> None:
        """Where something of ours fails the request goes out as it is, and that is counted."""
        service = Service()

        async def work() -> None:
            live().baggage = ("not a member",)  # type: ignore[assignment]
            await service.get()
            del live().recorder.request_id_header
            await service.get(forward_to="api.test")

        trace = await within_a_request(work, sink)
        assert [service.sent(number) for number in range(2)] == [{}, {}]
        assert ledger.read().errors == {"httpx": 2}
        assert [span.status.code for span in trace.data.spans] == ["OK"] * 3

    def test_without_httpx(self) -> None:
        """One sentence names the extra."""
        code = "import sys; sys.modules['httpx'] = None; import wherefrom.integrations.httpx"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "MissingExtraError: wherefrom.integrations.httpx needs" in done.stderr
        assert "pip install 'wherefrom[httpx]'" in done.stderr


async def test_two_services_share_one_trace(sink: MemorySink) -> None:
    """A service that continues what another sends: one trace, the second's root below the first's call."""

    async def inner(_request: Request) -> JSONResponse:
        return JSONResponse([context.trace_id, context.request_id, context.session_id, context.user_id])

    other = MemorySink()
    second = traced(Starlette(routes=[Route("/", inner)]), other, upstream="continue")
    answers: list[Any] = []

    async def work() -> None:
        transport = AsyncTraceTransport(httpx.ASGITransport(second), forward_to="b.internal")
        async with httpx.AsyncClient(transport=transport) as http:
            answers.append((await http.get("http://b.internal/")).json())

    headers = {"X-Request-ID": "r1", "X-Session-ID": "s1", "X-User-ID": "u1"}
    trace = await within_a_request(work, sink, headers=headers)
    assert answers == [[trace.info.trace_id, "r1", "s1", "u1"]]
    assert other.traces[0].data.spans[0].parent_id == child(trace).span_id
