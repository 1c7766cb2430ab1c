"""Traces over time."""

from __future__ import annotations

import pytest

from wherefrom import FilterError
from wherefrom.analysis import timeline
from wherefrom.analysis.timeline import MAX_VALUES
from wherefrom.stores import Store

from .traffic import START, make_trace, release

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def test_traces_and_errors_are_counted_for_each_value_and_step(store: Store) -> None:
    store.write([*release("1.0", 120, errors=120), *release("1.1", 60, first=90)[30:]])
    found = timeline(buckets=3, store=store)
    assert found.width_ms == MINUTE
    begin = START // MINUTE * MINUTE
    assert [(one.value, one.start - begin, one.traces, one.errors) for one in found.buckets] == [
        ("1.0", 0, 40, 40),
        ("1.0", MINUTE, 60, 60),
        ("1.0", 2 * MINUTE, 20, 20),
        ("1.1", 2 * MINUTE, 30, 0),
    ]
    assert found.to_dict()["buckets"][0]["value"] == "1.0"


@pytest.mark.parametrize(
    ("span", "width"),
    [
        (0, 1000),
        (59_000, 1000),
        (61_000, 2000),
        (HOUR, MINUTE),
        (59 * DAY, DAY),
        (61 * DAY, 2 * DAY),
        (600 * DAY, 10 * DAY),
    ],
)
def test_steps_have_a_round_length(store: Store, span: int, width: int) -> None:
    store.write([make_trace(0, version="1"), make_trace(1, version="1", at=START + span)])
    assert timeline(store=store).width_ms == width


def test_the_filter_and_the_key_are_as_in_compare(store: Store) -> None:
    store.write([make_trace(0, metadata={"k": "a"}), make_trace(1, metadata={"k": "b"}), make_trace(2)])
    assert [one.value for one in timeline("k", store=store).buckets] == ["a", "b"]
    assert [one.value for one in timeline("k", "metadata.k = 'b'", store=store).buckets] == ["b"]
    assert timeline("k", "metadata.k = 'c'", store=store).buckets == ()
    assert timeline("k", experiment="nobody", store=store).buckets == ()


def test_only_the_values_with_the_most_traces_are_shown(store: Store) -> None:
    count = MAX_VALUES + 1
    store.write([make_trace(n, metadata={"k": f"{n % count}"}) for n in range(2 * count - 1)])
    assert str(count - 1) not in {one.value for one in timeline("k", store=store).buckets}


@pytest.mark.parametrize("buckets", [0, 1001])
def test_there_are_1_to_1000_steps(store: Store, buckets: int) -> None:
    with pytest.raises(FilterError, match="buckets"):
        timeline(store=store, buckets=buckets)


def test_nothing_to_count(store: Store) -> None:
    assert timeline(store=store).buckets == ()
