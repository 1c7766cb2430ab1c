"""Filters, orders, tokens, names and moments of any kind: a result, or an error of ours."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom import TraceClient, WherefromError, analysis
from wherefrom.analysis.scope import opened
from wherefrom.analysis.tail import read_changes
from wherefrom.exceptions import FilterError, InvalidTraceError, TraceNotFoundError
from wherefrom.query.order import encode_token, parse_order
from wherefrom.query.parser import parse_filter
from wherefrom.stores import Store, open_store

from ..web.samples import make_traces
from ..web.test_hostile import MOMENTS, TEXTS, a_filter, a_token, a_value

texts = st.text(st.characters(), max_size=30) | st.sampled_from([*TEXTS, *MOMENTS, "\ud800", "x\udfff"])
numbers = st.integers(-(2**70), 2**70) | st.floats() | st.booleans()
anything = st.recursive(
    st.none() | texts | numbers | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('hostile') / 'wherefrom.db'}")
    store.write(make_traces(12))
    yield store
    store.close()


@pytest.mark.parametrize("digits", ["9" * 4301, "-" + "9" * 5000, "9" * 301, "1" + "0" * 400 + ".5", "1e999"])
@pytest.mark.parametrize("field", ["execution_time >", "timestamp <", "metadata.x =", "span.attributes.n >="])
def test_a_number_without_end_is_a_filter_error(field: str, digits: str) -> None:
    with pytest.raises(FilterError, match="too large"):
        parse_filter(f"{field} {digits}")


@pytest.mark.parametrize("text", ["{} d ago", "{}ms ago", "1h {} weeks ago", "{}s {}s ago"])
def test_a_moment_without_end_is_a_filter_error(text: str) -> None:
    moment = text.replace("{}", "9" * 400)
    with pytest.raises(FilterError, match="too long"):
        parse_filter(f"timestamp > '{moment}'")
    with pytest.raises(FilterError):
        parse_filter(f"execution_time > '{moment.removesuffix(' ago')}'")


@pytest.mark.parametrize("number", [2**63, -(2**63), 2**64 - 1, 1e300, True])
def test_a_token_holds_what_a_store_can(store: Store, number: float) -> None:
    order = parse_order(None)
    token = encode_token(order, [number, "tr-1"])
    with pytest.raises(FilterError, match="page_token"):
        TraceClient(store).search_traces(page_token=token)


@pytest.mark.parametrize("number", [2**63, -(2**63), 2**64 - 1])
def test_tokens_of_other_lists_do_too(store: Store, number: int) -> None:
    def token(*values: Any) -> str:
        return urlsafe_b64encode(orjson.dumps(values)).decode()

    with suppress(FilterError):
        analysis.sessions(store=store, page_token=token(number, "s"))
    for cursor in (f"1.{number}", f"{number}.1", f"{number}.{number}"):
        with suppress(FilterError), opened(store) as (snapshot, selection):
            read_changes(snapshot, selection, cursor)


@settings(max_examples=150)
@given(anything, anything, anything, anything, anything)
def test_a_search_of_anything(
    store: Store, filter_string: Any, names: Any, order: Any, most: Any, token: Any
) -> None:
    """Of any type too: what a caller passes on from a request or a file."""
    client = TraceClient(store)
    names = names if isinstance(names, (list, str)) else None
    for arguments in (
        {"filter_string": filter_string},
        {"experiment_ids": names},
        {"order_by": order},
        {"max_results": most},
        {"page_token": token},
    ):
        with suppress(WherefromError):
            client.search_traces(**arguments)
    for arguments in ({"filter_string": filter_string}, {"order_by": order}, {"page_token": token}):
        with suppress(WherefromError):
            client.search_experiments(**arguments)


@settings(max_examples=100)
@given(anything, anything, anything)
def test_an_edit_of_anything(store: Store, trace_id: Any, key: Any, value: Any) -> None:
    client = TraceClient(store)
    edits: list[Callable[[], Any]] = [
        lambda: client.get_trace(trace_id),
        lambda: client.set_trace_tag(trace_id, key, value),
        lambda: client.set_trace_tag(f"tr-{1:032x}", key, value),
        lambda: client.delete_trace_tag(trace_id, key),
        lambda: client.delete_trace_tag(f"tr-{1:032x}", key),
        lambda: client.delete_traces("nothing", trace_ids=[trace_id]),
        lambda: client.delete_traces(key, max_timestamp_millis=value),
        lambda: client.list_keys(key),
    ]
    for edit in edits:
        with suppress(TraceNotFoundError, InvalidTraceError, FilterError):
            edit()


def test_filters_and_tokens_that_are_almost_right(store: Store) -> None:
    """Seeded: the words of the language in any order, cut and changed."""
    random = Random(8)
    client = TraceClient(store)
    found = 0
    for _ in range(1500):
        where, token = a_filter(random), a_token(random)
        order = [f"{a_value(random)[:20]} DESC", "execution_time"][random.randrange(2) :]
        with suppress(FilterError):
            client.search_traces(None, where, 5)
            found += 1
        with suppress(FilterError):
            client.search_traces(None, None, 5, order, random.choice([token, None]))
        with suppress(WherefromError):
            analysis.compare(
                by=random.choice([a_value(random), "app_version"]), filter_string=where, store=store
            )
    assert found > 100
