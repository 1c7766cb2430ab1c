"""Stretches of time, traffic at once, and sums by block."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom._buckets import NOTHING
from wherefrom.analysis.blocks import (
    STRETCHES,
    Blocks,
    Count,
    measure_durations,
    measure_errors,
    measure_over,
    read_traffic,
)
from wherefrom.stores.base import CODE, BlockColumns, Durations, grouped


def steady(
    begin: int, end: int, *, process: str = "p", route: str = "r", bucket: int | None = 500
) -> list[Count]:
    return [Count(route, process, time, bucket, 2, 1) for time in range(begin, end)]


def test_one_after_the_other_each_has_its_own_stretches() -> None:
    blocks = Blocks.of(steady(100, 200), steady(0, 100))
    assert not blocks.same_time
    for side in (0, 1):
        stretches = blocks.sides[side].stretches.tolist()
        assert sorted(set(stretches)) == list(range(STRETCHES))
        sizes = [stretches.count(stretch) for stretch in set(stretches)]
        assert max(sizes) - min(sizes) <= 1
        assert blocks.traces(side) == 200


def test_of_a_canary_and_the_days_before_it_only_the_time_of_both_counts() -> None:
    blocks = Blocks.of(steady(900, 1000), steady(0, 1000))
    assert blocks.same_time
    assert blocks.traces(0) == blocks.traces(1) == 200
    assert blocks.sides[1].traffic.times.tolist() == list(range(900, 1000))


def test_a_short_overlap_while_pods_are_replaced_does_not_decide() -> None:
    blocks = Blocks.of(steady(95, 200), steady(0, 100))
    assert not blocks.same_time
    assert (blocks.traces(0), blocks.traces(1)) == (210, 200)


def test_traffic_in_turns_is_not_at_once() -> None:
    turns = [steady(start, start + 40) for start in range(0, 400, 40)]
    first, second = [*chain(*turns[::2])], [*chain(*turns[1::2])]
    assert not Blocks.of(first, second).same_time


def test_one_moment_and_no_traffic() -> None:
    same = steady(5, 6)
    assert not Blocks.of(same, same).same_time
    assert Blocks.of([], same).traces(0) == 0
    assert not Blocks.of([], same).same_processes


@pytest.mark.parametrize(
    ("first", "second", "expected"), [("a", "a", True), ("a", "b", False), ("", "", False)]
)
def test_processes_of_both_sides(first: str, second: str, expected: bool) -> None:
    blocks = Blocks.of(steady(0, 50, process=first), steady(0, 50, process=second))
    assert blocks.same_processes is expected


def test_blocks_are_summed_by_measure() -> None:
    counts = [Count("a", "p", 1, 10, 3, 2), Count("a", "p", 1, 20, 1, 0), Count("b", "p", 1, None, 4, 4)]
    blocks = Blocks.of(counts, [])
    table = blocks.table([measure_errors, measure_durations, measure_over(10)])
    assert [blocks.names[place] for place in blocks.of_names] == ["a", "b"]
    assert table.traces[:, 0].tolist() == [[4, 4], [4, 0], [4, 0]]
    assert table.totals[:, 0].tolist() == [[2, 4], [50, 0], [1, 0]]
    assert table.squares[:, 0].tolist() == [[2, 4], [700, 0], [1, 0]]
    for margin in table.margins.values():
        assert (margin.strata.tolist(), margin.sides.tolist()) == ([0, 1], [0, 0])
        assert margin.totals.tolist() == [[2, 4], [50, 0], [1, 0]]


def standardized(blocks: Blocks) -> list[list[float]]:
    found: list[list[float]] = blocks.standardized(blocks.table([measure_durations]).traces[0]).tolist()
    return found


def test_with_the_same_mix_the_distributions_are_alike() -> None:
    """Of one side 9 in 10 are slow, of the other 1 in 10; each route is as fast on both."""
    slow, fast = Count("slow", "", 1, 900, 90, 0), Count("fast", "", 1, 100, 10, 0)
    other = [slow._replace(traces=10), fast._replace(traces=90)]
    blocks = Blocks.of([slow, fast], other)
    first, second = standardized(blocks)
    assert first == pytest.approx(second)
    histogram = blocks.histograms().sum(0)
    assert {place + NOTHING: histogram[place] for place in histogram.nonzero()[0]} == {900: 100, 100: 100}


def test_the_standard_mix_is_of_what_both_have() -> None:
    alone = Count("new", "", 1, 900, 5, 0)
    shared = Count("r", "", 1, 100, 5, 0)
    first, second = standardized(Blocks.of([alone, shared], [shared]))
    assert first == second
    assert (sum(first), first[100 - NOTHING]) == (2.5, 2.5)


def test_a_side_that_would_be_left_with_too_few_traces_is_not_matched_in_time() -> None:
    few = [count._replace(traces=1, errors=0) for count in steady(75, 125)]
    blocks = Blocks.of(few, steady(0, 100))
    assert not blocks.same_time
    assert blocks.traces(0) == 50


def test_the_order_in_which_a_store_counts_makes_no_difference() -> None:
    """Not in the last digit: sums of weights that are no fractions of a power of two are exact too."""
    random = Random(1)

    def columns(rows: list[tuple[str, str, int, int]]) -> BlockColumns:
        values, strata, times, codes = map(list, zip(*rows, strict=True))
        ones, none = [1] * len(rows), [0] * len(rows)
        durations, failed = Durations("", none, codes, ones), Durations("", none, [], none)
        key = *grouped(values, strata), ["p"] * len(rows), times
        return BlockColumns(*key, ones, none, durations, failed)

    for _ in range(20):
        rows = [
            (value, random.choice("xyz"), time, CODE + random.choice([401, 402, 403, 411, 501]))
            for value in "ab"
            for time in range(random.choice([60, 100, 240]))
        ]
        found = []
        for _ in range(4):
            traffic = read_traffic([columns(rows)], "ab", {})
            found.append(standardized(Blocks(traffic["a"], traffic["b"])))
            random.shuffle(rows)
        assert found == found[:1] * 4


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_traces_that_are_subtracted_were_never_there(seed: int) -> None:
    """Nor the steps, strata and processes that only they have; also without the traces that failed."""
    random = Random(seed)

    def columns(rows: list[tuple[str, str, str, int, int, bool]], sign: int = 1) -> BlockColumns:
        values, strata, processes, times, codes, errors = (list(column) for column in zip(*rows, strict=True))
        ones, failed = [1] * len(rows), [code for code, error in zip(codes, errors, strict=True) if error]
        key = *grouped(values, strata), processes, times
        each = [*map(int, errors)]
        durations = Durations("", [0] * len(rows), codes, ones), Durations("", [0] * len(rows), failed, each)
        return BlockColumns(*key, ones, each, *durations, sign)

    rows = [
        (value, random.choice("xyz"), random.choice("pq"), time, CODE + random.randrange(400, 410), fails)
        for value in "ab"
        for time in range(60)
        for fails in (False, random.random() < 0.2)
    ]
    gone = [row for row in rows if row[3] in {0, 7, 8, 58, 59} or row[1] == "x" or random.random() < 0.3]
    left = [row for row in rows if row not in gone]
    less = read_traffic([columns(rows), columns([row for row in rows if row in gone], -1)], "ab", {})
    plain = read_traffic([columns(left)], "ab", {})
    succeeded = ({value: own.succeeded() for value, own in of.items()} for of in (less, plain))
    for one, other in ((less, plain), tuple(succeeded)):
        found, expected = (Blocks(of["a"], of["b"]) for of in (one, other))
        assert standardized(found) == standardized(expected)
        assert (found.same_time, found.same_processes) == (expected.same_time, expected.same_processes)
        for value in "ab":
            assert [each.tolist() for each in one[value].steps] == [
                each.tolist() for each in other[value].steps
            ]


def test_only_strata_that_are_there_take_room() -> None:
    """Not each name that any value has, times each part of the time."""
    sides = [
        [Count(f"job {value}{number // 2}", "", number, 500, 1, 0) for number in range(200)] for value in "ab"
    ]
    blocks = Blocks.of(*sides)
    assert blocks.same_time
    assert len(blocks.of_names) <= sum(len(side.traffic) for side in blocks.sides)


WITHOUT_NUMPY = """
import sys
import wherefrom.client, wherefrom.copying, wherefrom.analysis
assert "numpy" not in sys.modules
sys.modules["numpy"] = None
from wherefrom.analysis.blocks import Traffic
Traffic.of([])
"""


def test_numpy_is_for_comparisons_alone_and_its_lack_is_one_sentence() -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT_NUMPY], capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1] == (
        "wherefrom.exceptions.MissingExtraError: comparing traces needs an optional dependency:"
        " pip install 'wherefrom[cli]'"
    )
