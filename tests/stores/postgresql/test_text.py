"""Text that PostgreSQL cannot hold."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import MakeTrace
from wherefrom import TraceClient, keys
from wherefrom.stores.postgresql.store import PostgreSQLStore
from wherefrom.stores.postgresql.text import from_stored, from_stored_json, to_stored, to_stored_json

TEXTS = st.text(st.sampled_from('\0\U0010fffc\U0010fffd\\u0"a🙂'), max_size=12)


@given(TEXTS)
def test_text_reads_back_as_it_was(text: str) -> None:
    stored = to_stored(text)
    assert "\0" not in stored
    assert from_stored(stored) == text


@given(TEXTS, TEXTS)
def test_json_reads_back_as_it_was(key: str, value: str) -> None:
    """Also a backslash before what looks like a NUL."""
    text = orjson.dumps({key: [value, "\\u0000"]}).decode()
    stored = to_stored_json(text)
    assert "\0" not in "".join(map(str, orjson.loads(stored).items()))
    assert orjson.loads(from_stored_json(stored)) == orjson.loads(text)
    assert orjson.loads(stored) == {to_stored(key): [to_stored(value), "\\u0000"]}


@pytest.mark.parametrize("text", ["\0", "a\0b", "\U0010fffd", "\U0010fffc\0", "\ud800", "\\u0000", "\\\0"])
def test_every_place_holds_every_text(store: PostgreSQLStore, make_trace: MakeTrace, text: str) -> None:
    """Names, previews, pairs, attributes and messages; and they are found by it."""
    trace = make_trace(
        text,
        tags={keys.TRACE_NAME_TAG: text, "t": text},
        trace_metadata={"k": text, keys.SESSION: text},
        request_preview=text,
        experiment=text,
    )
    root = trace.data.spans[0]
    root.inputs, root.attributes = {"text": [text]}, {"a": text}
    store.write([trace, make_trace("other")])
    client = TraceClient(store)
    (found,) = client.search_traces([client.get_trace(trace.info.trace_id).info.experiment], "tag.t != 'x'")
    kept = text.replace("\ud800", "?") if "\ud800" in text else text
    expected: dict[str, Any] = {"k": kept, keys.SESSION: kept}
    shown = found.info.trace_metadata
    if kept == text:  # of a lone surrogate each store keeps what JSON can hold
        assert {key: shown[key] for key in expected} == expected
        assert (found.info.name, found.info.request_preview, found.info.tags["t"]) == (text, text, text)
        span = found.data.spans[0]
        assert (span.name, span.inputs, span.attributes) == (text, {"text": [text]}, {"a": text})
        quoted = text.replace("'", "''")
        for condition in ("name = '{}'", "metadata.k = '{}'", "tag.t LIKE '{}%'", "span.attributes.a = '{}'"):
            asked = condition.format(quoted)
            assert [one.info.trace_id for one in client.search_traces(filter_string=asked)] == [
                trace.info.trace_id
            ], asked


def test_what_is_too_long_for_an_index_is_cut(store: PostgreSQLStore, make_trace: MakeTrace) -> None:
    """Random text, which does not compress; longer metadata is kept as it is."""
    text = "".join(chr(0x20000 + number * 7919 % 20_000) for number in range(8000))
    session = {keys.SESSION: text, keys.USER: text, "k": text, keys.INSTANCE_ID: text[::-1]}
    trace = make_trace(text, trace_metadata=session, client_request_id=text, tags={"t": text})
    store.write([trace])
    store.set_tag(trace.info.trace_id, keys.TRACE_NAME_TAG, text)
    found = TraceClient(store).get_trace(trace.info.trace_id)
    assert found.info.trace_metadata["k"] == found.info.tags["t"] == text
    cut = text[:497] + "..."
    assert found.info.name == found.info.client_request_id == cut
    assert found.info.trace_metadata[keys.SESSION] == found.info.trace_metadata[keys.USER] == cut
    assert len(TraceClient(store).search_traces(filter_string=f"metadata.k LIKE '{text[:40]}%'")) == 1
