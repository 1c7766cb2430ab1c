"""Histograms: every duration is in one step, and the steps are those of all values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.analysis import compare
from wherefrom.analysis.statistics import STEPS, Sample, count_steps, make_edges
from wherefrom.stores import Store

from .traffic import make_trace, release

Durations = st.lists(st.integers(0, 10**12), min_size=1, max_size=50)


@given(Durations, Durations)
def test_every_duration_is_counted_once(first: list[int], second: list[int]) -> None:
    samples = Sample(first), Sample(second)
    edges = make_edges(samples)
    assert len(edges) == STEPS + 1
    assert list(edges) == sorted(edges)
    for sample in samples:
        counts = count_steps(sample, edges)
        assert len(counts) == STEPS
        assert sum(counts) == len(sample)


@given(Durations)
def test_a_step_holds_what_lies_between_its_edges(durations: list[int]) -> None:
    sample = Sample(durations)
    edges = make_edges([sample])
    counts = count_steps(sample, edges)
    for place, count in enumerate(counts[1:-1], start=1):
        assert count == sum(edges[place] <= duration < edges[place + 1] for duration in durations)


def test_steps_are_of_equal_ratio_and_shared_by_all(store: Store) -> None:
    store.write([*release("1.0", 100, ms=50), *release("1.1", 100, first=100, ms=500)])
    found = compare(store=store)
    ratios = [high / low for low, high in zip(found.edges, found.edges[1:], strict=False)]
    assert ratios == pytest.approx([ratios[0]] * STEPS)
    assert [sum(row.histogram) for row in found.rows] == [100, 100]
    p50 = found.rows[0].p50
    assert p50 is not None
    assert found.edges[0] < p50 < found.edges[-1]


def test_one_that_took_for_ever_does_not_squeeze_the_others(store: Store) -> None:
    slow = make_trace(5000, version="1.0", ms=3_600_000)
    store.write([*release("1.0", 2000, ms=50), slow])
    found = compare(store=store)
    assert found.edges[-1] < 1000
    assert sum(found.rows[0].histogram) == 2001


def test_without_durations_there_are_no_steps(store: Store) -> None:
    store.write([make_trace(0, version="1.0", ms=None)])
    found = compare(store=store)
    assert (found.edges, found.rows[0].histogram) == ((), ())
