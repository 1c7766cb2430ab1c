"""Identifiers: sortable by time, random where W3C asks for it, fresh in a forked child."""

from __future__ import annotations

import os
import random
import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom._ids import format_ids, new_random, new_request_id, new_span_id
from wherefrom.propagation import format_traceparent, parse_traceparent

times = st.integers(1, 2**48 - 1)


@given(times)
def test_a_trace_id_begins_with_its_time(now: int) -> None:
    """``tr-`` and 32 hex, the first twelve the time in ms: ids sort by time."""
    trace_id, span_id = format_ids(now * 1_000_000, *new_random())
    assert re.fullmatch(r"tr-[0-9a-f]{32}", trace_id)
    assert re.fullmatch(r"[0-9a-f]{16}", span_id)
    assert int(trace_id[3:15], 16) == now
    parsed = parse_traceparent(format_traceparent(trace_id[3:], span_id, True, True).encode())
    assert parsed is not None
    assert (parsed.trace_id, parsed.span_id) == (trace_id[3:], span_id)


@given(times)
def test_a_request_id_is_a_uuid7(now: int) -> None:
    """RFC 9562: version 7, its variant, and the time in ms in front."""
    text = new_request_id(now)
    parsed = uuid.UUID(text)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == now
    assert str(parsed) == text


def test_ids_do_not_repeat() -> None:
    """Ids of one millisecond differ."""
    traces, spans = zip(*(format_ids(1_000_000, *new_random()) for _ in range(10_000)), strict=True)
    assert len(set(traces)) == len(set(spans)) == 10_000
    assert len({new_span_id() for _ in range(10_000)}) == 10_000
    assert len({new_request_id(1) for _ in range(10_000)}) == 10_000


def test_an_app_s_seed_does_not_reach_them() -> None:
    """An app that seeds ``random`` does not make its workers hand out the same ids."""
    random.seed(1)
    first = format_ids(1_000_000, *new_random())
    random.seed(1)
    assert format_ids(1_000_000, *new_random()) != first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_ids_of_its_own() -> None:
    """Two workers forked from one parent do not draw the same numbers."""
    drawn = []
    for _ in range(2):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, format_ids(1_000_000, *new_random())[0].encode())
            os._exit(0)
        os.close(write)
        drawn.append(os.read(read, 100))
        os.close(read)
        os.waitpid(pid, 0)
    assert drawn[0] != drawn[1]
    assert format_ids(1_000_000, *new_random())[0].encode() not in drawn
