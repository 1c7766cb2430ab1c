"""What two sides show: what is found, what is not, and how sure it is."""

from __future__ import annotations

import math
from dataclasses import astuple
from itertools import combinations
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom._buckets import LOG_RATIO
from wherefrom.analysis import evidence
from wherefrom.analysis.blocks import Count
from wherefrom.analysis.clusters import Estimate, Part, Table, Terms
from wherefrom.analysis.evidence import Effect, Evidence, Needed, correct, gather, needed
from wherefrom.exceptions import QueryCancelledError
from wherefrom.stores.deadline import Deadline


def traffic(
    seed: int,
    side: str,
    *,
    traces: int = 1200,
    begin: int = 0,
    processes: int = 4,
    slower: float = 1.0,
    errors: float = 0.02,
    shares: tuple[float, ...] = (0.7, 0.3),
    slow_route: float = 1.0,
    differ: float = 0.0,
    named: bool = True,
) -> list[Count]:
    """Two routes of 20 and 200 ms over 300 s; the second takes ``slow_route`` times as long."""
    random = Random(f"{seed}/{side}")
    speeds = [random.gauss(0, differ) for _ in range(processes)]
    counts = []
    for _ in range(traces):
        route = random.choices(range(len(shares)), shares)[0]
        process = random.randrange(processes)
        us = 20_000 * 10**route * slower * (slow_route if route == 1 else 1)
        bucket = int((math.log(us) + random.gauss(0, 0.5) + speeds[process]) / LOG_RATIO)
        failed = random.random() < errors
        name = f"{side}{process}" if named else ""
        counts.append(Count(f"r{route}", name, begin + random.randrange(300), bucket, 1, failed))
    return counts


def directions(found: Evidence, alpha: float = 0.05) -> set[tuple[str, str | None, int]]:
    return {
        (one.kind, one.stratum, one.direction)
        for one in found.effects
        if one.p_adjusted < alpha and one.direction
    }


def test_the_same_traffic_shows_no_difference() -> None:
    found = [gather(traffic(seed, "a"), traffic(seed, "b", begin=300)) for seed in range(20)]
    assert sum(bool(directions(one)) for one in found) <= 2


def test_processes_that_differ_are_no_release_that_differs() -> None:
    """15 % between processes: as many traces as one likes do not make it a difference of releases."""
    wrong = sum(
        bool(directions(gather(traffic(seed, "a", differ=0.15), traffic(seed, "b", differ=0.15))))
        for seed in range(25)
    )
    assert wrong <= 3


def test_another_mix_is_no_difference_but_is_named() -> None:
    for seed in range(10):
        found = gather(traffic(seed, "a", shares=(0.3, 0.7)), traffic(seed, "b", begin=300))
        assert not directions(found)
        assert {change.stratum for change in found.mix} == {"r0", "r1"}
        assert found.p95 is not None
        assert found.p95.interval.low is not None
        assert found.p95.interval.high is not None
        assert found.p95.interval.low < 1 < found.p95.interval.high


def test_all_routes_slower() -> None:
    found = gather(traffic(1, "a", slower=1.5), traffic(1, "b", begin=300))
    assert ("durations", None, 1) in directions(found)
    duration = found.find("durations")
    assert duration is not None
    assert duration.estimate.effect == pytest.approx(math.log(1.5), abs=0.08)
    assert found.p50 is not None
    assert found.p50.change == pytest.approx(0.5, abs=0.12)
    assert found.processes == (4, 4)


def test_one_slower_route_is_named() -> None:
    found = gather(
        traffic(1, "a", shares=(0.9, 0.1), slow_route=2), traffic(1, "b", shares=(0.9, 0.1), begin=300)
    )
    assert ("durations", "r1", 1) in directions(found)
    assert ("durations", "r0", 1) not in directions(found)


def test_errors() -> None:
    found = gather(traffic(1, "a", errors=0.1), traffic(1, "b", begin=300))
    assert ("errors", None, 1) in directions(found)
    errors = found.find("errors")
    assert errors is not None
    assert errors.rates[0] - errors.rates[1] == pytest.approx(errors.estimate.effect)
    interval = errors.estimate.interval(0.95)
    assert interval.low is not None
    assert interval.high is not None
    assert 0 < interval.low < 0.08 < interval.high


def test_at_once_the_same_is_found() -> None:
    found = gather(traffic(1, "a", slower=1.5), traffic(1, "b"))
    assert found.same_time
    assert ("durations", None, 1) in directions(found)


def test_without_processes_stretches_of_time_decide() -> None:
    found = gather(traffic(1, "a", slower=1.5, named=False), traffic(1, "b", begin=300, named=False))
    assert ("durations", None, 1) in directions(found)


def test_too_few_traces_or_no_common_route_show_nothing() -> None:
    few = gather(traffic(1, "a", traces=29), traffic(1, "b"))
    assert few.effects == ()
    other = [count._replace(stratum="other") for count in traffic(1, "a")]
    assert gather(other, traffic(1, "b")).effects == ()
    assert gather([], []).effects == ()


def test_what_is_certain_but_small_does_not_matter() -> None:
    first = [Count("r", "", time, 500, 1000, 0) for time in range(320)]
    second = [Count("r", "", 1000 + time, 498 + time % 2, 1000, 0) for time in range(320)]
    found = gather(first, second)
    duration = found.find("durations")
    assert duration is not None
    assert duration.p_adjusted < 0.001
    assert duration.direction == 0


def test_how_much_more_it_takes() -> None:
    few = gather(traffic(1, "a", traces=300), traffic(1, "b", traces=300, begin=300))
    assert few.needed is not None
    assert few.needed.times is not None
    assert few.needed.times > 1
    uneven = gather(traffic(4, "a", differ=0.3), traffic(4, "b", differ=0.3, begin=300))
    assert uneven.needed is not None
    assert uneven.needed.processes is not None
    assert uneven.needed.processes > 4
    many = [Count("r", "", time, 500 + time % 3, 100, 0) for time in range(320)]
    assert gather(many, [count._replace(time=count.time + 1000) for count in many]).needed is None


def test_repeated_looks_need_more() -> None:
    sides = traffic(1, "a", slower=1.2), traffic(1, "b", begin=300)
    once, again = gather(*sides), gather(*sides, anytime=True)
    for one, other in zip(once.effects, again.effects, strict=True):
        assert one.p_value <= other.p_value + 1e-12
    assert once.p95 is not None
    assert again.p95 is not None
    assert (once.p95.interval.low or 0) > (again.p95.interval.low or 0)


def test_several_pairs_are_corrected_together() -> None:
    pairs = [gather(traffic(seed, "a", slower=1.3), traffic(seed, "b", begin=300)) for seed in range(3)]
    corrected = correct(pairs)
    for pair, one in zip(pairs, corrected, strict=True):
        for effect, other in zip(pair.effects, one.effects, strict=True):
            assert effect.p_value <= effect.p_adjusted <= other.p_adjusted
    assert correct([]) == []


counts = st.lists(
    st.builds(
        lambda route, process, time, bucket, traces, failed: Count(
            route, process, time, bucket, traces, traces if failed else 0
        ),
        st.sampled_from("xy"),
        st.sampled_from(["", "p", "q"]),
        st.integers(0, 1000),
        st.none() | st.integers(-1, 1200),
        st.integers(1, 50),
        st.booleans(),
    ),
    max_size=30,
)


@settings(max_examples=40)
@given(counts, counts)
def test_the_other_way_round_all_is_the_opposite(first: list[Count], second: list[Count]) -> None:
    found, turned = gather(first, second), gather(second, first)
    assert len(found.effects) == len(turned.effects)
    known = {(one.kind, one.stratum): one for one in turned.effects}
    for one in found.effects:
        other = known[one.kind, one.stratum]
        assert one.estimate.effect == pytest.approx(-other.estimate.effect, abs=1e-9)
        assert one.p_adjusted == pytest.approx(other.p_adjusted, rel=1e-3, abs=1e-6)


@settings(max_examples=40)
@given(counts, counts, st.permutations(["x", "y"]), st.integers(-(10**6), 10**6))
def test_names_and_the_origin_of_time_mean_nothing(
    first: list[Count], second: list[Count], names: list[str], later: int
) -> None:
    renamed = dict(zip("xy", names, strict=True))
    sides = [
        [
            c._replace(stratum=renamed[c.stratum], process=c.process and f"{c.process}1", time=c.time + later)
            for c in side
        ]
        for side in (first, second)
    ]
    found = {(e.kind, e.stratum): e.p_value for e in gather(first, second).effects}
    again = {
        (e.kind, e.stratum and renamed[e.stratum]): e.p_value for e in gather(sides[0], sides[1]).effects
    }
    assert found == pytest.approx(again, rel=1e-3, abs=1e-6)


@settings(max_examples=40)
@given(counts, counts, st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_how_they_are_divided_matters(
    first: list[Count], second: list[Count], random: Random
) -> None:
    sides = []
    for side in (first, second):
        rows = [c._replace(traces=1, errors=int(c.errors > 0)) for c in side for _ in range(c.traces)]
        sides.append(random.sample(rows, len(rows)))
    found, again = (
        {(e.kind, e.stratum): e for e in gather(*two).effects} for two in ((first, second), sides)
    )
    assert found.keys() == again.keys()
    for kind, one in found.items():
        assert one.estimate.effect == pytest.approx(again[kind].estimate.effect, abs=1e-9)
        assert one.p_adjusted == pytest.approx(again[kind].p_adjusted, rel=1e-3, abs=1e-6)


alike = st.lists(
    st.tuples(
        st.sampled_from("xyz"), st.integers(0, 999), st.integers(1, 40),
        st.tuples(st.integers(-1, 1200), st.integers(-1, 1200)), st.tuples(st.booleans(), st.booleans()),
    ),
    min_size=1, max_size=20,
)  # fmt: skip


@settings(max_examples=60)
@given(alike, alike)
def test_equal_traffic_turns_no_difference_of_equally_many_traces_round(
    made: list[Any], added: list[Any]
) -> None:
    """Whatever is added to both: each difference has the same sign as before, or is smaller than rounding."""

    def side(number: int, rows: list[Any], other: int) -> list[Count]:
        return [
            Count(route, "p", 1000 * number + time, buckets[other], n, n * failed[other])
            for route, time, n, buckets, failed in rows
        ]

    before = gather(side(0, made, 0), side(1, made, 1))
    after = gather(side(0, made, 0) + side(0, added, 0), [*side(1, made, 1), *side(1, added, 0)])
    for kind in ("errors", "durations"):
        one, other = before.find(kind), after.find(kind)
        if one is not None and other is not None:
            assert one.estimate.effect * other.estimate.effect >= -1e-12


@given(
    st.lists(st.tuples(st.floats(1e-6, 1), st.sampled_from([0.6, 0.2, 0.07, 0.03])), min_size=1, max_size=6)
)
def test_weighted_correction_is_the_closed_test_of_all_subsets(given_: list[tuple[float, float]]) -> None:
    """A difference is seen at a level at which every set of differences with it is, by Bonferroni."""
    effects = tuple(
        Effect("errors", None, _uncertain((2, 2)), p_value, p_value, weight) for p_value, weight in given_
    )
    expected = []
    for place in range(len(effects)):
        others = [at for at in range(len(effects)) if at != place]
        sets = [(place, *some) for size in range(len(effects)) for some in combinations(others, size)]
        of_sets = (
            sum(effects[at].weight for at in some)
            * min(effects[at].p_value / effects[at].weight for at in some)
            for some in sets
        )
        expected.append(min(1.0, max(of_sets)))
    (found,) = correct([Evidence(effects, (100, 100), False, (2, 2))])
    assert [one.p_adjusted for one in found.effects] == pytest.approx(expected)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([0.7, 1.0, 1.5]), st.floats(0.01, 0.2))
def test_equal_traffic_never_turns_a_verdict_round(seed: int, slower: float, errors: float) -> None:
    """The same traces added to both sides move what is seen towards no difference, never past it."""
    first = traffic(seed, "a", traces=200, slower=slower, errors=errors)
    second = traffic(seed, "b", traces=200, begin=300)
    equal = traffic(seed, "c", traces=200, begin=600)
    before = directions(gather(first, second))
    after = directions(gather([*first, *equal], [*second, *equal]))
    assert not {(kind, stratum, -towards) for kind, stratum, towards in before} & after


def test_a_small_canary_is_not_better_because_no_trace_of_it_failed() -> None:
    wrong = sum(
        bool(directions(gather(traffic(seed, "a", traces=60, errors=0.015), traffic(seed, "b", traces=3000))))
        for seed in range(12)
    )
    assert wrong <= 1


def test_where_traces_are_enough_more_processes_are_needed() -> None:
    shown = [
        needed(_uncertain(processes), math.log(1.1), 0.99, anytime=False) for processes in ((2, 3), (0, 0))
    ]
    assert shown == [Needed(None, 4), None]


def _uncertain(processes: tuple[int, int]) -> Estimate:
    """Almost no variance, of which almost nothing is known."""
    return Estimate(0.0, 1000, 1e-4, Part(), Part(0.0, 2e-8), processes)


def test_where_cells_are_many_fewer_strata_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [
        [Count(f"r{place % 8}", "", begin + place, 500 + place % 7, 1, 0) for place in range(800)]
        for begin in (0, 800)
    ]

    def strata() -> set[str | None]:
        return {effect.stratum for effect in gather(*sides).effects} - {None}

    assert len(strata()) == 8
    monkeypatch.setattr(evidence, "_MOST_CLUSTERS", 100)
    assert len(strata()) == 5


def test_strata_that_are_not_shown_are_summed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of strata with thousands of processes would otherwise take gigabytes."""
    sides = [
        [Count(f"r{place}", side, begin + place, 500, 2, 0) for place in range(60)]
        for begin, side in ((0, "a"), (100, "b"))
    ]
    made: list[int] = []
    of = Terms.of

    def counting(table: Table, parts: Any, number: int) -> Terms:
        made.append(number)
        return of(table, parts, number)

    monkeypatch.setattr(Terms, "of", counting)
    gather(*sides)
    assert made == [51]


def test_a_deadline_ends_the_comparison_of_one_pair() -> None:
    side = [Count("r", "", time, 500, 1, 0) for time in range(30)]
    with Deadline() as deadline:
        deadline.cancel()
        with pytest.raises(QueryCancelledError):
            gather(side, side)


@pytest.mark.parametrize("cells", [1, 200, evidence._MOST_CELLS])
def test_each_of_several_pairs_shows_what_it_shows_alone(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    """Whatever else is compared: more processes, fewer strata, other times, in few or many arrays."""
    pairs = [
        (traffic(1, "a", slower=1.5), traffic(1, "b")),
        (traffic(2, "a", processes=9, shares=(0.5, 0.3, 0.2)), traffic(2, "b", begin=300)),
        (traffic(3, "a", traces=20), traffic(3, "b")),
        (traffic(4, "a", errors=0.2, named=False), traffic(4, "b", named=False)),
        (traffic(5, "a", shares=(1.0,)), traffic(5, "a", begin=300, slower=1.2)),
        ([], traffic(6, "b")),
        (traffic(7, "a", slow_route=2.0), traffic(7, "b", begin=300)),
    ]
    alone = [gather(*pair) for pair in pairs]
    assert len({(one.same_time, one.processes) for one in alone}) > 4
    monkeypatch.setattr(evidence, "_MOST_CELLS", cells)

    def is_as(found: Any, other: Any) -> bool:
        if isinstance(other, tuple):
            return len(found) == len(other) and all(map(is_as, found, other))
        return bool(
            found == (pytest.approx(other, rel=1e-9, abs=1e-15) if isinstance(other, float) else other)
        )

    # Numbers may differ by rounding, as zeros of the others are added to them.
    together = evidence.gather_all(pairs)
    for one, other in zip(together, correct(alone), strict=True):
        assert is_as(astuple(one), astuple(other))
