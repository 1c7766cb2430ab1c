"""Verdicts on traffic that is the same and on traffic that differs, and their sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import pytest

from wherefrom.analysis import Verdict, compare, headline, sentence, summary
from wherefrom.analysis.blocks import MIN_TRACES, Count, Traffic
from wherefrom.analysis.results import Group
from wherefrom.analysis.statistics import Sample
from wherefrom.analysis.verdicts import Judgement, Pair, judge
from wherefrom.exceptions import QueryCancelledError
from wherefrom.stores import Store
from wherefrom.stores.deadline import Deadline

from .traffic import random_group, release


def verdict(group: dict[str, float], other: dict[str, float], seed: int = 1, count: int = 400) -> Judgement:
    random = Random(seed)
    sides = (
        random_group(random, count, figures.pop("errors", 0.02), **figures)
        for figures in (dict(group), dict(other))
    )
    return judge([Pair(*sides)], 0.95)[0]


def timed(durations: list[int]) -> Group:
    return Group("timed", len(durations), 0, 0, 1, Sample.of(durations), Sample())


@pytest.mark.parametrize("count", [MIN_TRACES, 180, 1000])
def test_of_the_same_traffic_at_most_one_in_twenty_is_said_to_differ(count: int) -> None:
    random = Random(count)
    found: Counter[Verdict] = Counter()
    for _ in range(300):
        pair = Pair(random_group(random, count, 0.05), random_group(random, count, 0.05))
        found[judge([pair], 0.95)[0].verdict] += 1
    # 15 are expected at most, and 24 are met once in a hundred times by chance.
    assert found[Verdict.BETTER] + found[Verdict.WORSE] <= 24
    assert found[Verdict.TOO_FEW] == 0


def test_so_it_is_when_many_values_are_compared() -> None:
    """Holm's correction: five values, and still one comparison in twenty is wrong about any of them."""
    random = Random(5)
    wrong = 0
    for _ in range(100):
        baseline = random_group(random, 150, 0.05)
        pairs = [Pair(random_group(random, 150, 0.05), baseline) for _ in range(5)]
        wrong += any(one.verdict is not Verdict.NO_DIFFERENCE for one in judge(pairs, 0.95))
    assert wrong <= 5


@pytest.mark.parametrize(
    ("group", "other", "expected"),
    [
        ({"errors": 0.09}, {"errors": 0.02}, Verdict.WORSE),
        ({"errors": 0.02}, {"errors": 0.09}, Verdict.BETTER),
        ({"ms": 130}, {"ms": 100}, Verdict.WORSE),
        ({"ms": 100}, {"ms": 130}, Verdict.BETTER),
        ({"tail": 0.07}, {}, Verdict.WORSE),
        ({}, {"tail": 0.07}, Verdict.BETTER),
    ],
)
def test_of_traffic_that_differs_nine_in_ten_are_seen(
    group: dict[str, float], other: dict[str, float], expected: Verdict
) -> None:
    found = Counter(verdict(group, other, seed).verdict for seed in range(50))
    assert found[expected] >= 45
    assert found[expected] + found[Verdict.NO_DIFFERENCE] >= 49


@pytest.mark.parametrize(
    ("group", "other"), [({"errors": 0.45}, {"errors": 0.05}), ({"ms": 182}, {"ms": 100})]
)
def test_thirty_traces_show_what_the_module_says(group: dict[str, float], other: dict[str, float]) -> None:
    found = Counter(verdict(group, other, seed, MIN_TRACES).verdict for seed in range(200))
    assert found[Verdict.WORSE] >= 170


def test_fewer_than_thirty_of_either_are_too_few_whatever_they_show() -> None:
    random = Random(1)
    few, many = random_group(random, MIN_TRACES - 1, 1.0), random_group(random, 1000, 0.0)
    for pair in (Pair(few, many), Pair(many, few)):
        (found,) = judge([pair], 0.95)
        assert found.verdict is Verdict.TOO_FEW
        assert list(found.tests) == []
    assert found.reason == "1,000 and 29 traces, but 30 of each are needed"


def test_the_reason_names_the_rates_the_p_value_and_the_traces() -> None:
    found = verdict({"errors": 0.09}, {"errors": 0.02})
    assert found.tests.errors is not None
    assert found.reason.startswith("error rate 9.0 % against 2.2 % (+6.8 points, 95 % CI 3.6 to 9.9), p ")
    assert found.reason.endswith(", 400 and 400 traces")
    assert found.tests.errors.p_adjusted < 0.0002


def test_the_reason_for_no_difference_names_all_that_was_tested() -> None:
    found = verdict({}, {}, seed=2)
    assert found.verdict is Verdict.NO_DIFFERENCE
    assert found.reason.startswith("error rate 1.8 % against 3.2 % (-1.5 points, 95 % CI -3.7 to 0.7), p = ")
    assert (
        "; p50 101 ms against 96.8 ms, p95 252 ms against 257 ms, less than 5 % apart, p = 1, "
        in found.reason
    )
    assert found.reason.endswith(
        "400 and 400 traces; about 2.3 times as many traces would show durations that differ by 10 %"
    )


def test_failing_fast_is_no_merit() -> None:
    """More errors that come at once are worse, although traces have become faster."""
    found = verdict({"errors": 0.4, "fail_ms": 2}, {"errors": 0.02, "fail_ms": 2})
    assert found.verdict is Verdict.WORSE
    assert "; but faster: p50 " in found.reason


def test_the_release_that_mends_it_is_better_although_slower() -> None:
    found = verdict({"errors": 0.02, "fail_ms": 2}, {"errors": 0.4, "fail_ms": 2})
    assert found.verdict is Verdict.BETTER
    assert found.reason.startswith("error rate ")
    assert "; but slower: p50 " in found.reason
    assert found.reason.endswith("; those that succeeded are not slower")


def test_fewer_errors_do_not_make_good_that_what_succeeds_is_slower() -> None:
    found = verdict({"errors": 0.02, "ms": 200, "fail_ms": 2}, {"errors": 0.4, "fail_ms": 2})
    assert found.verdict is Verdict.WORSE
    assert found.reason.startswith("slower: p50 ")
    assert "; but error rate " in found.reason


def test_both_for_the_worse_are_both_named() -> None:
    found = verdict({"errors": 0.2, "ms": 200}, {})
    assert found.verdict is Verdict.WORSE
    assert found.reason.startswith("error rate ")
    assert "; slower: p50 " in found.reason


def test_a_few_very_slow_traces_are_seen_though_most_are_as_before() -> None:
    usual = list(range(100_000, 300_000, 100))
    now = [10 * duration if place % 50 == 0 else duration for place, duration in enumerate(usual)]
    (found,) = judge([Pair(timed(now), timed(usual))], 0.95)
    assert found.tests.latency is not None
    assert not found.tests.latency.matters
    assert found.verdict is Verdict.WORSE
    assert found.reason == (
        "more slow traces: 2.0 % against 0.0 % take over 301 ms, p < 0.0001, 2,000 and 2,000 traces"
    )
    (back,) = judge([Pair(timed(usual), timed(now))], 0.95)
    assert back.verdict is Verdict.BETTER
    assert back.reason.startswith("fewer slow traces: 0.0 % against 2.0 % take over ")


def test_what_is_sure_but_small_does_not_count() -> None:
    """Among 100,000 traces 2 % are certain; it takes 5 % to matter."""
    found = verdict({"ms": 102}, {}, count=100_000)
    assert found.tests.latency is not None
    assert found.tests.latency.p_adjusted < 0.0001
    assert found.verdict is Verdict.NO_DIFFERENCE
    assert "less than 5 % apart, p < 0.0001" in found.reason


def test_durations_are_not_tested_where_few_are_known() -> None:
    timed_too = Group("timed", 100, 10, 0, 1, random_group(Random(1), 90, 0.0).succeeded, Sample())
    unknown = Group("unknown", 100, 10, 0, 1, Sample(), Sample())
    (found,) = judge([Pair(timed_too, unknown)], 0.95)
    assert found.tests.latency is None
    assert found.tests.tail is None
    assert found.reason == (
        "error rate 10.0 % against 10.0 % (+0.0 points, 95 % CI -8.3 to 8.3), p = 1, 100 and 100 traces"
    )


def test_durations_of_nothing_at_all() -> None:
    random = Random(1)
    instant = random_group(random, 100, 0.0, ms=0.0001)
    slow = random_group(random, 100, 0.0)
    (found,) = judge([Pair(slow, instant)], 0.95)
    assert found.verdict is Verdict.WORSE
    assert found.tests.latency is not None
    assert found.tests.latency.p50_change is None
    assert judge([Pair(instant, instant)], 0.95)[0].verdict is Verdict.NO_DIFFERENCE


def test_verdicts_in_whole_sentences(store: Store) -> None:
    store.write(
        [
            *release("1.0", 300),
            *release("1.1", 300, first=300, errors=60),
            *release("1.2", 300, first=600),
            *release("1.3", 300, first=900, ms=20),
            *release("1.4", 10, first=1200),
        ]
    )
    found = compare(store=store)
    said = {row.value: sentence(row) for row in found.rows}
    assert said["1.0"] == ""
    assert said["1.1"].startswith("1.1 is worse than 1.0: error rate 20.0 % against 0.0 % (+20.0 points, ")
    assert said["1.1"].endswith("300 and 300 traces.")
    assert said["1.2"].startswith("No difference seen between 1.2 and 1.0: error rate ")
    assert said["1.3"].startswith("1.3 is better than 1.0: faster: ")
    assert said["1.4"] == (
        "Too few traces to judge 1.4 against 1.0: 10 and 300 traces, but 30 of each are needed."
    )
    assert [one.text for one in summary(found)] == [said["1.1"], said["1.3"], said["1.2"], said["1.4"]]


def test_those_alike_are_told_together(store: Store) -> None:
    store.write([trace for n in range(20) for trace in release(f"1.{n:02}", 40, first=40 * n)])
    store.write([trace for n in range(20, 26) for trace in release(f"1.{n}", 40, first=40 * n, errors=40)])
    found = summary(compare(store=store))
    assert [one.text.partition(":")[0] for one in found[:4]] == [
        f"1.{n} is worse than 1.00" for n in (25, 24, 23, 22)
    ]
    assert found[4].text == "Also worse: 1.21 and 1.20."
    assert found[5].text == (
        "No difference seen for 1.19, 1.18, 1.17, 1.16, 1.15, 1.14, 1.13, 1.12, 1.11, 1.10, 1.09, 1.08"
        " and 7 more."
    )


def test_all_of_it_in_one_line(store: Store) -> None:
    assert headline(compare(store=store)) == "no traces"
    store.write(release("1.0", 300))
    assert headline(compare(store=store)) == "nothing to compare with"
    store.write(release("1.1", 10, first=300))
    assert headline(compare(store=store)) == "too few traces"
    store.write(release("1.2", 300, first=600))
    assert headline(compare(store=store)) == "no difference seen"
    store.write(release("1.3", 300, first=900, ms=20))
    assert headline(compare(store=store)) == "1.3 is better than 1.0"
    store.write(release("1.4", 300, first=1200, errors=90))
    assert headline(compare(store=store)) == "1.4 is worse than 1.0"
    store.write(release("1.5", 300, first=1500, errors=90))
    assert headline(compare(store=store)) == "2 of 5 are worse"


def traffic(counts: Mapping[str, Sequence[Count]]) -> dict[str, Traffic]:
    return {value: Traffic.of(of_value) for value, of_value in counts.items()}


def test_pruned_traces_are_too_few_whatever_the_rollups_count() -> None:
    random = Random(1)
    group, other = (replace(random_group(random, 400, rate), value=str(rate)) for rate in (0.5, 0.01))
    live = [Count("r", "p", time, 500, 1, 0) for time in range(40)]
    (found,) = judge([Pair(group, other)], 0.95, traffic({"0.5": live[:29], "0.01": live}))
    assert found.verdict is Verdict.TOO_FEW
    assert found.reason == "the traces whose process and route are known were pruned"
    later = [count._replace(time=count.time + 100) for count in live[:35]]
    (found,) = judge([Pair(group, other)], 0.95, traffic({"0.5": later, "0.01": live}))
    assert "35 and 40 traces that were not pruned" in found.reason


def test_fewer_errors_of_too_few_that_succeeded_do_not_make_good_what_is_slower() -> None:
    """Of the other, 20 succeeded: whether those that succeed became slower cannot be said."""
    slow = [Count("r", "", time, 600 + time % 3, 1, 0) for time in range(200)]
    failing = [Count("r", "", 300 + time, 400 + time % 3, 1, time % 10 != 0) for time in range(200)]
    sides = [replace(random_group(Random(1), 200, 0.0), value=value) for value in "ab"]
    (found,) = judge([Pair(*sides)], 0.95, traffic({"a": slow, "b": failing}))
    assert found.verdict is Verdict.WORSE
    assert "not slower" not in found.reason


def test_traces_of_other_routes_are_too_few_of_the_same_kind() -> None:
    sides = [replace(random_group(Random(1), 50, 0.0), value=value) for value in "ab"]
    counts = {
        value: [Count(f"{value}{time}", "", time, 500, 1, 0) for time in range(begin, begin + 50)]
        for value, begin in (("a", 0), ("b", 50))
    }
    (found,) = judge([Pair(*sides)], 0.95, traffic(counts))
    assert found.reason == "they have too few traces of the same kind to compare like with like"


def test_a_deadline_ends_the_tests() -> None:
    pair = Pair(*(random_group(Random(1), 50, 0.0) for _ in range(2)))
    with Deadline() as deadline:
        deadline.cancel()
        with pytest.raises(QueryCancelledError):
            judge([pair], 0.95)
