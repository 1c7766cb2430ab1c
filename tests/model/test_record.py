"""Records: what a queue holds and a store reads is the trace that was recorded."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.facts import make_facts
from wherefrom import Span, SpanEvent, SpanStatus, Trace, TraceInfo, TraceState, keys
from wherefrom.exceptions import InvalidTraceError
from wherefrom.model import Source, SpanStatusCode, TraceData
from wherefrom.model.record import decode, encode, kind_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)
PAIRS = st.dictionaries(TEXT, TEXT, max_size=4)
TIMES = st.integers(0, 2**62)


@st.composite
def traces(draw: Any) -> Trace:
    source = Source(draw(PAIRS))
    start = draw(TIMES)
    duration = draw(st.integers(1, 10**12))
    info = TraceInfo(
        "tr-" + "a" * 32,
        draw(TEXT),
        start // 1_000_000,
        duration // 1_000_000,
        draw(st.sampled_from(TraceState)),
        draw(st.none() | TEXT),
        draw(st.none() | TEXT),
        draw(st.none() | TEXT),
        {**source, **draw(PAIRS)},
        draw(PAIRS),
        source,
    )
    if draw(st.booleans()):
        info.trace_metadata |= {keys.SESSION: draw(TEXT), keys.USER: draw(TEXT)}
        info.tags[keys.TRACE_NAME_TAG] = draw(TEXT)
    spans = [
        Span(
            info.trace_id,
            f"{number:016x}",
            f"{number - 1:016x}" if number else None,
            draw(TEXT),
            draw(TEXT),
            start,
            start + duration,
            SpanStatus(draw(st.sampled_from(SpanStatusCode)), draw(TEXT)),
            draw(VALUES),
            draw(VALUES),
            draw(st.dictionaries(TEXT, VALUES, max_size=3)),
            [SpanEvent(draw(TEXT), draw(TIMES), draw(st.dictionaries(TEXT, VALUES, max_size=3)))],
            [{"trace_id": info.trace_id, "span_id": "0" * 16, "attributes": {}}]
            if draw(st.booleans())
            else [],
        )
        for number in range(draw(st.integers(1, 3)))
    ]
    return Trace(info, TraceData(spans))


@given(traces())
def test_a_record_reads_back_as_the_trace_it_was_made_of(trace: Trace) -> None:
    """Every field of the info and of each span, whatever text it holds."""
    found = decode(encode(trace))
    assert found == trace
    assert found.info.source is not None


@given(traces())
def test_a_record_shares_nothing_with_its_trace(trace: Trace) -> None:
    """What becomes of the trace later does not change it."""
    record = encode(trace)
    before = decode(record)
    trace.info.trace_metadata.clear()
    trace.info.tags["later"] = "x"
    trace.data.spans[0].attributes["later"] = 1
    trace.data.spans[0].events.clear()
    assert decode(record) == before


def test_the_garbage_collector_has_nothing_to_walk(make_trace: Any) -> None:
    """The bytes of a record refer to nothing; records that are alike share one shape."""
    first, second = encode(make_trace()), encode(make_trace())
    assert not gc.is_tracked(first[0])
    assert first[1] is second[1]


@pytest.mark.parametrize("time", [2**63, -(2**63) - 1, 1.5, "noon"])
def test_a_time_that_is_no_integer_of_64_bits_is_refused(make_trace: Any, time: Any) -> None:
    """One sentence names what it takes."""
    trace = make_trace()
    trace.info.request_time = time
    with pytest.raises(InvalidTraceError, match="64 bits"):
        encode(trace)


def test_text_that_json_cannot_hold_is_replaced(make_trace: Any) -> None:
    """A lone surrogate in any text does not cost the trace."""
    trace = make_trace(trace_metadata={"own\ud800": "\udfff"}, tags={"t": "\ud800"})
    span = trace.data.spans[0]
    span.name = span.span_type = "\ud800"
    span.attributes = {"\ud800": "\ud800"}
    span.inputs = ["\ud800"]
    found = decode(encode(trace))
    assert found.info.trace_metadata["own?"] == "?"
    assert (found.data.spans[0].name, found.data.spans[0].attributes, found.data.spans[0].inputs) == (
        "?",
        {"?": "?"},
        ["?"],
    )


def test_facts_of_many_clients_are_of_one_kind() -> None:
    """A store learns the keys once, not again for each client address and browser."""
    shared = '{"wherefrom.outcome":"completed","client.address":"10.0.0.%d"}'
    assert len({kind_of(make_facts(number, shared=shared % number)) for number in range(200)}) == 1
