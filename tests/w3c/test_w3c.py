"""The 41 checks of the W3C's trace-context test service (Level 2), against the app under real uvicorn.

The names are the service's own (github.com/w3c/trace-context, test/test.py); the rest is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .harness import CallBack, Headers, harness, serving

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER = "4bf92f3577b34da6a3ce929d0e0e4736"
ZERO = "0" * 32
Expect = Callable[[CallBack], bool]


def parent(text: str, name: str = "traceparent") -> tuple[str, str]:
    return name, text


def valid(flags: str = "01", trace: str = TRACE) -> str:
    return f"00-{trace}-{SPAN}-{flags}"


def states(*values: str, name: str = "tracestate") -> Headers:
    """A valid ``traceparent`` and these ``tracestate`` headers."""
    return [parent(valid("00")), *((name, value) for value in values)]


def joins(back: CallBack) -> bool:
    """The app carries the trace on, from a span of its own."""
    return back.trace_id == TRACE and back.parent_id != SPAN


def restarts(back: CallBack) -> bool:
    """The app has begun a trace of its own, with nothing of the other's state."""
    return back.trace_id not in {TRACE, OTHER, ZERO} and back.tracestate is None


def carries(text: str | None) -> Expect:
    """The app joins, and its ``tracestate`` is exactly this."""
    return lambda back: joins(back) and back.tracestate == text


def any_of(*texts: str) -> Expect:
    return lambda back: joins(back) and back.tracestate in texts


def refused(*traceparents: str) -> list[tuple[Headers, Expect]]:
    return [([parent(text)], restarts) for text in traceparents]


def joined(*traceparents: str) -> list[tuple[Headers, Expect]]:
    return [([parent(text)], joins) for text in traceparents]


def members(count: int) -> list[str]:
    """So many members, over four headers."""
    pairs = [f"bar{number:02}={number:02}" for number in range(1, count + 1)]
    return [",".join(pairs[first : first + 10]) for first in range(0, count, 10)]


LATER = "what-the-future-will-be-like"
KEY = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
VALUE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")

CHECKS: dict[str, list[tuple[Headers, Expect]]] = {
    "both_traceparent_and_tracestate_missing": [([], restarts)],
    "traceparent_included_tracestate_missing": [([parent(valid())], carries(None))],
    "traceparent_duplicated": [
        ([parent(valid(trace=OTHER)), parent(valid())], restarts),
        ([parent(valid()), parent(valid())], restarts),
    ],
    "traceparent_header_name": [
        ([parent(valid(), name)], restarts) for name in ("trace-parent", "trace.parent")
    ],
    "traceparent_header_name_valid_casing": [
        ([parent(valid(), name)], joins) for name in ("TraceParent", "TrAcEpArEnT", "TRACEPARENT")
    ],
    "traceparent_version_0x00": refused(valid() + ".", f"{valid()}-{LATER}"),
    "traceparent_version_0xcc": [
        *joined("cc" + valid()[2:], f"cc{valid()[2:]}-{LATER}"),
        *refused(f"cc{valid()[2:]}.{LATER}"),
    ],
    "traceparent_version_0xff": refused("ff" + valid()[2:]),
    "traceparent_version_illegal_characters": refused(".0" + valid()[2:], "0." + valid()[2:]),
    "traceparent_version_too_long": refused("0" + valid(), "00" + valid()),
    "traceparent_version_too_short": refused(valid()[1:]),
    "traceparent_trace_id_all_zero": refused(valid(trace=ZERO)),
    "traceparent_trace_id_illegal_characters": refused(
        valid(trace="." + TRACE[1:]), valid(trace=TRACE[:-1] + ".")
    ),
    "traceparent_trace_id_too_long": refused(valid(trace=TRACE + "3")),
    "traceparent_trace_id_too_short": refused(valid(trace=TRACE[:-1])),
    "traceparent_parent_id_all_zero": refused(f"00-{TRACE}-{'0' * 16}-01"),
    "traceparent_parent_id_illegal_characters": refused(
        f"00-{TRACE}-.{SPAN[1:]}-01", f"00-{TRACE}-{SPAN[:-1]}.-01"
    ),
    "traceparent_parent_id_too_long": refused(f"00-{TRACE}-{SPAN}7-01"),
    "traceparent_parent_id_too_short": refused(f"00-{TRACE}-{SPAN[:-1]}-01"),
    "traceparent_trace_flags_illegal_characters": refused(valid(".0"), valid("0.")),
    "traceparent_trace_flags_too_long": refused(valid("001")),
    "traceparent_trace_flags_too_short": refused(valid("1")),
    "traceparent_ows_handling": joined(
        f" {valid()}", f"\t{valid()}", f"{valid()} ", f"{valid()}\t", f"\t {valid()} \t"
    ),
    "tracestate_included_traceparent_missing": [
        ([("tracestate", "foo=1")], restarts),
        ([("tracestate", "foo=1,bar=2")], restarts),
    ],
    "tracestate_included_traceparent_included": [(states("foo=1,bar=2"), carries("foo=1,bar=2"))],
    "tracestate_header_name": [
        (states("foo=1", name=name), carries(None)) for name in ("trace-state", "trace.state")
    ],
    "tracestate_header_name_valid_casing": [
        (states("foo=1", name=name), carries("foo=1")) for name in ("TraceState", "TrAcEsTaTe", "TRACESTATE")
    ],
    "tracestate_empty_header": [
        (states(""), carries(None)),
        (states("foo=1", ""), carries("foo=1")),
        (states("", "foo=1"), carries("foo=1")),
    ],
    "tracestate_multiple_headers_different_keys": [
        (states("foo=1,bar=2", "rojo=1,congo=2", "baz=3"), carries("foo=1,bar=2,rojo=1,congo=2,baz=3"))
    ],
    # A caller's mistake that costs nobody's state: kept as they are, or one of them (w3c/trace-context#552).
    "tracestate_duplicated_keys": [
        (states("foo=1,foo=1"), any_of("foo=1", "foo=1,foo=1")),
        (states("foo=1,foo=2"), any_of("foo=1", "foo=2", "foo=1,foo=2")),
        (states("foo=1", "foo=1"), any_of("foo=1", "foo=1,foo=1")),
        (states("foo=1", "foo=2"), any_of("foo=1", "foo=2", "foo=1,foo=2")),
    ],
    "tracestate_all_allowed_characters": [
        (states(f"{KEY}={VALUE}"), carries(f"{KEY}={VALUE}")),
        (states(f"{KEY}@a-z0-9_-*/={VALUE}"), carries(f"{KEY}@a-z0-9_-*/={VALUE}")),
    ],
    "tracestate_ows_handling": [
        (states("foo=1 \t , \t bar=2, \t baz=3"), carries("foo=1,bar=2,baz=3")),
        (states("foo=1\t \t,\t \tbar=2,\t \tbaz=3"), carries("foo=1,bar=2,baz=3")),
        *(
            (states(text), carries("foo=1"))
            for text in (" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t")
        ),
    ],
    "tracestate_key_illegal_characters": [
        (states(text), carries(None)) for text in ("foo =1", "FOO=1", "foo.bar=1")
    ],
    # Level 2 has one form of key, in which an at sign may stand anywhere but in front.
    "tracestate_key_illegal_vendor_format": [
        (states("@foo=1,bar=2"), carries(None)),
        *(
            (states(text), carries(text))
            for text in ("foo@=1,bar=2", "foo@@bar=1,bar=2", "foo@bar@baz=1,bar=2")
        ),
    ],
    "tracestate_member_count_limit": [
        (states(*members(32)), carries(",".join(members(32)))),
        (states(*members(33)), carries(None)),
    ],
    "tracestate_key_length_limit": [
        (states("foo=1", "z" * 257 + "=1"), carries(None)),
        *(
            (states("foo=1", f"{key}=1"), carries(f"foo=1,{key}=1"))
            for key in ("z" * 256, "t" * 241 + "@" + "v" * 14, "t" * 242 + "@v", "t@" + "v" * 15)
        ),
    ],
    "tracestate_value_illegal_characters": [
        (states("foo=bar=baz"), carries(None)),
        (states("foo=,bar=3"), carries(None)),
    ],
    "propagates_random_flag": [
        ([parent(valid("02"))], lambda back: joins(back) and back.flags == 0x02),
        ([parent(valid("03"))], lambda back: joins(back) and back.flags == 0x03),
        ([parent(valid("01"))], lambda back: joins(back) and back.flags == 0x01),
        ([parent(valid("ff"))], lambda back: joins(back) and back.flags == 0x03),
    ],
}

MULTIPLE = {
    "multiple_requests_with_valid_traceparent": ([parent(valid())], {TRACE}),
    "multiple_requests_without_traceparent": ([], None),
    "multiple_requests_with_illegal_traceparent": ([parent(valid(trace=ZERO))], None),
}


@pytest.fixture(scope="module", params=["h11", "httptools"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with serving(request.param) as port:
        yield port


@pytest.mark.parametrize(
    "check",
    CHECKS,
)
async def test_one_call(port: int, check: str) -> None:
    """A request with these headers makes the app call with the right ones."""
    async with harness(port) as service:
        for headers, expected in CHECKS[check]:
            (back,) = await service.send(headers)
            assert expected(back), (headers, vars(back))


@pytest.mark.parametrize("check", MULTIPLE)
async def test_several_calls(port: int, check: str) -> None:
    """Several calls of one request are of one trace, each from a span of its own."""
    headers, trace_ids = MULTIPLE[check]
    async with harness(port) as service:
        backs = await service.send(headers, 3)
    found = {back.trace_id for back in backs}
    assert found == (trace_ids or found - {ZERO})
    assert len(found) == 1
    assert len({back.parent_id for back in backs}) == 3


def test_there_are_41() -> None:
    """As many as the service has."""
    assert len(CHECKS) + len(MULTIPLE) == 41
