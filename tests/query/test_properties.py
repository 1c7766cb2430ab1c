"""Laws that hold for every filter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.engines import ENGINES, IN_SQL
from wherefrom.exceptions import FilterError
from wherefrom.model import Trace
from wherefrom.query import format_filter, parse_filter
from wherefrom.query.order import parse_order
from wherefrom.query.tokens import tokenize
from wherefrom.query.tree import Node
from wherefrom.stores import Selection, Store, open_store
from wherefrom.stores.sql import conditions, plan, search

from .asking import Asker
from .predicate import matches
from .samples import filters, random_traces


class Sample:
    """Random traces and who reads them; plain, as hypothesis prints all of a dataclass."""

    def __init__(self, store: Store, asker: Asker, traces: list[Trace], ways: Sequence[Way]) -> None:
        self.store = store
        self.asker = asker
        self.traces = traces
        self.ways = ways

    def keys(self, text: str, order: list[str] | None = None, limit: int = 500) -> list[Any]:
        """The keys of the traces that a filter selects; a snapshot of its own plans it anew."""
        with self.store.snapshot() as snapshot:
            return list(snapshot.search(Selection(parse_filter(text)), parse_order(order), limit).keys)


Way = tuple[int, int, int]
# RARE, FEW and MAX_BRANCHES of the plan.
WAYS: list[Way] = [(0, 64, 64), (0, 0, 64), (0, 0, 0), (1_000, 64, 0), (1_000, 1, 64)]
# A search over a socket takes longer: of a server one sample is enough.
SAMPLES = [("sqlite", seed) for seed in (1, 2, 3)] + [(name, 1) for name in ENGINES if name != "sqlite"]


@contextmanager
def sampled(request: pytest.FixtureRequest) -> Iterator[Sample]:
    engine, seed = request.param
    new_url = ENGINES[engine](request)
    traces = random_traces(Random(seed), 120)
    store = open_store(url := new_url())
    store.write(traces)
    with store.snapshot() as snapshot:
        asker = Asker(snapshot, [trace.info.trace_id for trace in traces])
        yield Sample(store, asker, traces, WAYS if engine == "sqlite" else WAYS[-1:])
    store.close()
    new_url.release(url)


def named(pair: tuple[str, int]) -> str:
    return f"{pair[0]}-{pair[1]}"


@pytest.fixture(scope="module", params=SAMPLES, ids=named)
def sample(request: pytest.FixtureRequest) -> Iterator[Sample]:
    with sampled(request) as sample:
        yield sample


@pytest.fixture(scope="module", params=[pair for pair in SAMPLES if pair[0] in IN_SQL], ids=named)
def sql_sample(request: pytest.FixtureRequest) -> Iterator[Sample]:
    """In a store whose searches choose among indexes."""
    with sampled(request) as sample:
        yield sample


@given(tree=filters)
@settings(max_examples=300, deadline=None)
def test_a_formatted_tree_reads_back_as_itself(tree: Node) -> None:
    assert parse_filter(format_filter(tree)) == tree


@given(tree=filters)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sql_answers_as_the_plain_predicate(sample: Sample, tree: Node) -> None:
    """NOT selects exactly the other traces."""
    expected = [trace for trace in sample.traces if matches(tree, trace)]
    expected.sort(key=lambda trace: (-trace.info.request_time, trace.info.trace_id))
    text = format_filter(tree)
    found, others = sample.asker.ids(text), sample.asker.ids(f"NOT ({text})")
    assert found == [trace.info.trace_id for trace in expected]
    assert sorted(found + others) == sorted(trace.info.trace_id for trace in sample.traces)


@given(tree=filters)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_answer_is_the_same_with_more_sources_than_can_be_listed(
    sql_sample: Sample, tree: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = format_filter(tree)
    expected = sql_sample.keys(text)
    with monkeypatch.context() as patched:
        patched.setattr(conditions, "MAX_SOURCES", 0)
        assert sql_sample.keys(text) == expected


@given(tree=filters, order=st.sampled_from([["execution_time DESC"], ["timestamp ASC"], ["name"]]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_answer_is_the_same_in_any_order_and_by_any_index(
    sql_sample: Sample, tree: Node, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = format_filter(tree)
    expected = sorted(sql_sample.keys(text))
    for rare, few, branches in sql_sample.ways:
        with monkeypatch.context() as patched:
            patched.setattr(plan, "RARE", rare)
            patched.setattr(search, "FEW", few)
            patched.setattr(search, "MAX_BRANCHES", branches)
            found = sql_sample.keys(text, order)
            first = sql_sample.keys(text, order, 3)
        assert sorted(found) == expected
        assert first == found[:3]


@pytest.mark.parametrize(
    "order", [["execution_time DESC"], ["timestamp ASC"], ["name"], ["tag.t", "name DESC"]]
)
def test_pages_are_a_cut_order(sample: Sample, order: list[str]) -> None:
    whole = sample.asker.ids(order=order)
    assert len(whole) == len(sample.traces)
    assert sample.asker.pages(order, 7) == whole


@given(
    text=st.text(alphabet=st.sampled_from(list("aAND ORNTIS().,`'\"=!<>%_-0123456789\\\n\x00é")), max_size=60)
)
@example("metadata.a = 'it\\'s'")
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_filter_or_a_filter_error(text: str) -> None:
    with suppress(FilterError):
        parse_filter(text)


@given(text=st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_tokens_cover_the_text(text: str) -> None:
    try:
        tokens = tokenize(text)
    except FilterError:
        return
    assert all(text[token.start : token.end] == token.text for token in tokens)
    gaps = zip([0, *(token.end for token in tokens)], [token.start for token in tokens], strict=False)
    assert not "".join(text[start:end] for start, end in gaps).strip()
