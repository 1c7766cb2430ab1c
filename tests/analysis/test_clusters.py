"""Stratified differences, ratios and their variances, against scipy, statsmodels, and by enumeration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wherefrom.analysis.clusters import (
    Contrast,
    Estimate,
    Kind,
    Margin,
    Setting,
    Table,
    Terms,
    contrast,
    estimate,
    ratio,
    summed,
)

if TYPE_CHECKING:
    from statsmodels.stats.contingency_tables import StratifiedTable

APART = Setting(same_processes=False, same_time=False)


class Cell(NamedTuple):
    """Sums over the traces of one process in one stretch of time."""

    side: int
    stratum: str
    process: str
    stretch: int
    traces: int
    total: float
    squares: float


def tabulated(cells: Sequence[Cell]) -> Table:
    names = sorted({one.stratum for one in cells})
    sides = np.array([one.side for one in cells])
    strata = np.array([names.index(one.stratum) for one in cells])
    values = np.array([one[-3:] for one in cells], float).T[:, None]
    margins: dict[Kind, Margin] = {}
    kinds: tuple[tuple[int, Kind], ...] = ((2, "process"), (3, "stretch"))
    for place, kind in kinds:
        known = [at for at, one in enumerate(cells) if one[place] != ""]
        labels = sorted({cells[at][place] for at in known})
        clusters = np.array([labels.index(cells[at][place]) for at in known], int)
        margins[kind] = Margin(
            len(labels), sides[known], strata[known], clusters, *(each[:, known] for each in values[:2])
        )
    places = sides * len(names) + strata
    traces, totals, squares = summed(values, places, 2 * len(names)).reshape(3, 1, 2, -1)
    return Table(traces, totals, squares, margins)


def cell(side: int, values: Sequence[float], process: str = "", stretch: int = 0, stratum: str = "s") -> Cell:
    return Cell(side, stratum, process, stretch, len(values), sum(values), sum(v * v for v in values))


def turn(cells: Sequence[Cell]) -> list[Cell]:
    return [c._replace(side=1 - c.side) for c in cells]


def compared(cells: Sequence[Cell]) -> Contrast:
    found = contrast(tabulated(cells))
    assert found.traces > 0
    return found


def estimated(found: Contrast, setting: Setting = APART, *, assumed: float = 0.0) -> Estimate:
    ((one,),) = estimate(found, setting, assumed=assumed)
    return one


def judged(cells: Sequence[Cell], setting: Setting = APART, *, assumed: float = 0.0) -> Estimate:
    return estimated(compared(cells), setting, assumed=assumed)


values = st.lists(st.floats(-100, 100), min_size=1, max_size=5)
some_cells = st.lists(
    st.builds(
        cell,
        st.integers(0, 1),
        values,
        st.sampled_from("abc"),
        st.integers(0, 3),
        st.sampled_from("xyz"),
    ),
    min_size=1,
    max_size=20,
)


@given(some_cells)
def test_the_difference_is_that_of_least_squares_with_a_level_for_each_stratum(cells: list[Cell]) -> None:
    found = contrast(tabulated(cells))
    both = {c.stratum for c in cells if c.side == 0} & {c.stratum for c in cells if c.side == 1}
    assert (found.traces > 0) == bool(both)
    if not both:
        return
    kept = [c for c in cells if c.stratum in both]
    design = np.array([[1.0 - c.side, *(float(c.stratum == s) for s in "xyz")] for c in kept])
    weights = np.sqrt([c.traces for c in kept])
    means = np.array([c.total / c.traces for c in kept])
    expected = np.linalg.lstsq(design * weights[:, None], means * weights, rcond=None)[0][0]
    assert found.effect == pytest.approx(expected, abs=1e-6)
    for scores, shares in found.clusters.values():
        assert scores.sum() == pytest.approx(0, abs=1e-6)
        assert shares.sum() == pytest.approx(1)


@given(st.lists(some_cells, min_size=2, max_size=4))
def test_the_rest_of_several_parts_is_the_contrast_of_all_others(parts: list[list[Cell]]) -> None:
    named = [[c._replace(stratum=f"{place}{c.stratum}") for c in part] for place, part in enumerate(parts)]
    cells = [c for part in named for c in part]
    of = np.array([int(name[0]) for name in sorted({c.stratum for c in cells})])
    rests = Terms.of(tabulated(cells), of, len(parts)).rests().contrast(np.array([True]))
    for place, (ours,) in enumerate(zip(*estimate(rests, APART), strict=True)):
        others = [c for other, part in enumerate(named) if other != place for c in part]
        theirs = estimated(contrast(tabulated(others), is_share=True))
        assert ours.traces == theirs.traces
        assert (ours.effect, ours.variance) == pytest.approx(
            (theirs.effect, theirs.variance), rel=1e-6, abs=1e-9
        )


@given(some_cells)
def test_the_other_way_round_it_is_the_opposite(cells: list[Cell]) -> None:
    found, turned = (contrast(tabulated(each)) for each in (cells, turn(cells)))
    assert found.traces == turned.traces
    for setting in (APART, Setting(same_processes=True, same_time=True)):
        one, other = estimated(found, setting), estimated(turned, setting)
        assert one.effect == pytest.approx(-other.effect, abs=1e-9)
        assert one.variance == pytest.approx(other.variance, rel=1e-6, abs=1e-9)
        assert one.p_value() == pytest.approx(other.p_value(), rel=1e-3, abs=1e-6)


@given(some_cells)
def test_names_mean_nothing(cells: list[Cell]) -> None:
    found = contrast(tabulated(cells))
    others = {"a": "z", "b": "k", "c": "m"}
    renamed = contrast(
        tabulated([c._replace(stratum=f"route {c.stratum}", process=others[c.process]) for c in cells])
    )
    one, other = estimated(found), estimated(renamed)
    assert (one.effect, one.variance) == pytest.approx((other.effect, other.variance))


@settings(max_examples=25)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 10**6))
def test_between_processes_it_is_students_test_of_their_means(n: int, m: int, seed: int) -> None:
    """Many traces that are alike within each process: nothing but the processes is uncertain."""
    from scipy import stats

    random = Random(seed)
    means = [[random.gauss(10, 1) for _ in range(count)] for count in (n, m)]
    cells = [
        Cell(side, "s", f"{side}/{process}", 0, 10**6, 10**6 * mean, 10**6 * mean * mean)
        for side, of_side in enumerate(means)
        for process, mean in enumerate(of_side)
    ]
    found = judged(cells)
    expected = stats.ttest_ind(*means)
    assert found.processes == (n, m)
    assert found.df == pytest.approx(n + m - 2, rel=1e-4)
    assert found.effect / found.error == pytest.approx(expected.statistic, rel=1e-3)
    assert found.p_value() == pytest.approx(expected.pvalue, rel=0.01)
    interval, known = found.interval(0.95), expected.confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((known.low, known.high), rel=0.01, abs=0.01)


def test_processes_that_serve_both_sides_are_compared_with_themselves() -> None:
    from scipy import stats

    random = Random(1)
    levels = [random.gauss(0, 5) for _ in range(6)]
    differences = [random.gauss(1, 0.5) for _ in levels]
    cells = []
    for place, (level, more) in enumerate(zip(levels, differences, strict=True)):
        for side, value in enumerate((level + more, level)):
            cells.append(Cell(side, str(place), str(place), 0, 10**6, 10**6 * value, 10**6 * value * value))
    found = judged(cells, Setting(same_processes=True, same_time=False))
    expected = stats.ttest_1samp(differences, 0)
    assert found.df == pytest.approx(5, rel=1e-3)
    assert found.p_value() == pytest.approx(expected.pvalue, rel=0.01)


def test_without_clusters_it_is_welchs_variance_of_traces() -> None:
    from scipy import stats

    first, second = [1.0, 2, 3, 4], [2.0, 4, 6]
    found = judged([cell(0, first), cell(1, second)])
    assert found.effect == pytest.approx(2.5 - 4)
    assert found.variance == pytest.approx(np.var(first) / 4 + np.var(second) / 3)
    assert found.df == math.inf
    assert found.p_value() == pytest.approx(2 * stats.norm.sf(1.5 / math.sqrt(found.variance)))


def test_stretches_that_drift_count_as_fewer() -> None:
    """The same values in the order of a slow wave and mixed up: only their order differs."""
    wave = [math.sin(place / 16 * 2 * math.pi) for place in range(16)]
    mixed = wave[::2] + wave[1::2][::-1]
    slow, quick = (
        judged(
            [
                cell(side, [value + 10] * 50, stretch=place + 16 * side)
                for side in (0, 1)
                for place, value in enumerate(series)
            ]
        )
        for series in (wave, [mixed[place * 7 % 16] for place in range(16)])
    )
    assert slow.variance > 3 * quick.variance
    assert slow.df < quick.df / 2


def test_what_a_moment_adds_to_both_sides_cancels_out() -> None:
    random = Random(2)
    load = [random.gauss(0, 3) for _ in range(16)]
    cells = [
        cell(
            side,
            [load[place] + random.gauss(0.2 * side, 0.1) for _ in range(5)],
            stretch=place,
            stratum=str(place),
        )
        for side in (0, 1)
        for place in range(16)
    ]
    found = judged(cells, Setting(same_processes=False, same_time=True))
    assert found.effect == pytest.approx(-0.2, abs=0.05)
    assert found.p_value() < 0.001


def test_one_process_on_each_side_is_taken_to_differ_as_assumed() -> None:
    cells = [cell(side, [1.0 * n for n in range(10)], process=f"p{side}") for side in (0, 1)]
    assert judged(cells, assumed=2.0).between_processes.variance == pytest.approx(2 * 2.0**2)
    assert judged(cells).between_processes.variance == 0


def test_a_single_process_is_taken_to_differ_as_those_of_the_other_side() -> None:
    random = Random(3)
    many = [cell(0, [random.gauss(0, 1) + p] * 100, process=f"old{p}") for p in range(4)]
    one = cell(1, [0.0, 1.0, 2.0] * 30, process="new")
    found = judged([*many, one])
    assert found.processes == (4, 1)
    deviation = np.std([c.total / c.traces for c in many], ddof=1)
    assert found.variance == pytest.approx(deviation**2 * (1 / 4 + 1), rel=0.05)
    assert found.df == pytest.approx(3, rel=0.1)


def test_unknown_processes_leave_time_alone_to_decide() -> None:
    cells = [cell(side, [1.0, 2.0], stretch=p + 16 * side) for side in (0, 1) for p in range(16)]
    assert judged(cells, assumed=5.0).between_processes.variance == 0


def test_equal_values_differ_by_nothing() -> None:
    found = judged(
        [cell(side, [3.0] * 40, stretch=place + 9 * side) for side in (0, 1) for place in range(9)]
    )
    assert (found.effect, found.variance, found.p_value()) == (0, 0, 1)


def test_a_few_traces_that_never_failed_do_not_show_that_none_fails() -> None:
    few, many = Cell(0, "s", "", 0, 60, 0, 0), Cell(1, "s", "", 1, 3000, 45, 45)
    found = contrast(tabulated([few, many]), is_share=True)
    rate = 45 / 3060
    assert found.noise.sum() == pytest.approx(rate * (1 - rate) * (1 / 60 + 1 / 3000))
    assert estimated(found).p_value() > 0.2


def test_a_trace_of_an_unknown_process_leaves_the_variance_between_the_others() -> None:
    random = Random(4)
    known = [
        cell(side, [random.gauss(level, 1) for _ in range(200)], process=f"{side}/{place}")
        for side in (0, 1)
        for place, level in enumerate((-1.0, 0.0, 0.5, 1.0))
    ]
    alone, joined = judged(known), judged([*known, cell(0, [0.1])])
    assert joined.processes == (4, 4)
    assert joined.between_processes.variance == pytest.approx(alone.between_processes.variance, rel=0.05)


def test_half_of_the_traces_of_unknown_processes_tell_as_much_of_the_other_half() -> None:
    levels = (-1.0, 0.0, 0.5, 0.5)
    known = [
        cell(side, [level - 1, level + 1] * 100, process=f"{side}/{place}")
        for side in (0, 1)
        for place, level in enumerate(levels)
    ]
    unknown = [c._replace(process="") for c in known]
    alone, joined = judged(known), judged([*known, *unknown])
    assert joined.between_processes.variance == pytest.approx(alone.between_processes.variance, rel=0.01)


def test_a_side_within_one_moment_varies_over_time_as_the_other_does() -> None:
    random = Random(5)
    long = [cell(0, [random.gauss(load, 0.1) for _ in range(50)], stretch=p) for p, load in
            enumerate(random.gauss(0, 1) for _ in range(16))]  # fmt: skip
    found = judged([*long, cell(1, [0.0, 0.1, 0.2] * 30, stretch=16)])
    assert found.over_time.variance > 0.5


def test_a_stretch_of_three_traces_in_a_hundred_shows_no_variance_over_time() -> None:
    """Nearly all traces are of one moment, so they tell as much of the load over time as one moment does."""
    sides = [[cell(side, [1.0] * 97 * side + [0.0] * 97 * (1 - side), stretch=2 * side)] for side in (0, 1)]
    one = judged([*sides[0], *sides[1]])
    late = [cell(side, [float(side)] * 2 + [float(1 - side)], stretch=2 * side + 1) for side in (0, 1)]
    both = judged([*sides[0], *sides[1], *late])
    assert one.over_time.variance == 0
    assert both.over_time.variance == 0
    assert both.p_value() < 0.001


def test_rounding_is_no_difference_of_values() -> None:
    found = compared([Cell(side, "s", "", side, 3, 0.3, 0.03 - 1e-17) for side in (0, 1)])
    assert not found.noise.any()


def test_rounding_is_no_drift_of_the_load() -> None:
    """One side never failed: in whichever order it had its traffic, the same is known."""
    failing = [(68, 1), (46, 15), (32, 0), (82, 15), (23, 1), (69, 1)]
    sizes = [22, 77, 13, 37, 20, 68, 62, 65, 88]
    first, second = (
        estimated(
            contrast(
                tabulated(
                    [
                        *(Cell(0, "s", "", place, n, x, x) for place, (n, x) in enumerate(failing)),
                        *(Cell(1, "s", "", 16 + place, n, 0, 0) for place, n in enumerate(order)),
                    ]
                ),
                is_share=True,
            )
        )
        for order in (sizes, sorted(sizes))
    )
    assert first.variance == pytest.approx(second.variance)


def test_amounts_that_never_vary_differ_as_much_as_if_all_were_alike() -> None:
    """Each request costs 2 cents, or 1: that is a difference, and how sure depends on how many there are."""
    sides = [
        [Cell(side, "s", f"{side}{p}", 0, 50, 50 * cost, 50 * cost**2) for p in range(4)]
        for side, cost in ((0, 0.02), (1, 0.01))
    ]
    found = ratio(tabulated([*sides[0], *sides[1]]))
    assert found is not None
    assert found.effect == pytest.approx(math.log(2))
    assert 0.01 < math.sqrt(found.noise.sum()) < 0.1
    same = ratio(tabulated([*sides[0], *(cell._replace(side=1) for cell in sides[0])]))
    assert same is not None
    assert same.effect == 0
    assert not same.noise.any()


def test_processes_that_are_known_only_where_all_amounts_are_0_tell_nothing() -> None:
    cells = [
        *(cell(side, [1.0, 3.0], stretch=side) for side in (0, 1)),
        *(cell(side, [0.0, 0.0], f"p{side}", side, "without") for side in (0, 1)),
    ]
    found = ratio(tabulated(cells))
    assert found is not None
    assert estimated(found).processes == (0, 0)


def test_amounts_as_good_as_0_have_no_ratio() -> None:
    assert ratio(tabulated([cell(side, [1e-200 * (side + 1)] * 3) for side in (0, 1)])) is None


# Against others' implementations, and by enumeration


@st.composite
def tables(draw: st.DrawFn) -> list[tuple[int, int, int, int]]:
    """Errors and traces of both sides, for each of some routes."""
    found = []
    for _ in range(draw(st.integers(1, 5))):
        n, m = draw(st.integers(1, 60)), draw(st.integers(1, 60))
        found.append((draw(st.integers(0, n)), n, draw(st.integers(0, m)), m))
    return found


def failing(rows: Sequence[tuple[int, int, int, int]]) -> list[Cell]:
    return [
        Cell(side, str(place), "", 0, row[2 * side + 1], row[2 * side], row[2 * side])
        for place, row in enumerate(rows)
        for side in (0, 1)
    ]


def stratified(rows: Sequence[tuple[int, int, int, int]]) -> StratifiedTable:
    from statsmodels.stats.contingency_tables import StratifiedTable

    return StratifiedTable([np.array([[x, n - x], [y, m - y]]) for x, n, y, m in rows])


@given(tables())
def test_of_errors_it_is_the_test_of_cochran_mantel_and_haenszel(
    rows: list[tuple[int, int, int, int]],
) -> None:
    """Its numerator is the difference, and its variance the least noise, but for N against N - 1."""
    assume(any(0 < x + y < n + m for x, n, y, m in rows))  # a route of one outcome says nothing
    information = sum(n * m / (n + m) for _, n, _, m in rows)
    found = contrast(tabulated(failing(rows)), is_share=True)
    rates = [(n, m, (x + y) / (n + m)) for x, n, y, m in rows]
    corrected = sum(n * m * r * (1 - r) / (n + m - 1) for n, m, r in rates)
    with np.errstate(all="ignore"):
        expected = stratified(rows).test_null_odds(correction=False).statistic
    assert (found.effect * information) ** 2 / corrected == pytest.approx(expected, abs=1e-9)
    least = sum(n * m * r * (1 - r) / (n + m) for n, m, r in rates) / information**2
    assert found.noise.sum() >= least * (1 - 1e-9)


@given(tables())
def test_a_ratio_of_errors_is_the_risk_ratio_of_mantel_and_haenszel(
    rows: list[tuple[int, int, int, int]],
) -> None:
    from statsmodels.stats.contingency_tables import Table2x2

    found = ratio(tabulated(failing(rows)))
    if any(not sum(row[place] for row in rows) for place in (0, 2)):
        assert found is None
        return
    assert found is not None
    with np.errstate(all="ignore"):
        expected = stratified(rows).riskratio_pooled
        x, n, y, m = rows[0]
        error = Table2x2([[x, n - x], [y, m - y]], shift_zeros=False).log_riskratio_se
    assert math.exp(found.effect.item()) == pytest.approx(expected)
    assert found.clusters["stretch"][0].sum() == pytest.approx(0, abs=1e-9)
    turned = ratio(tabulated(turn(failing(rows))))
    assert turned is not None
    assert turned.effect == pytest.approx(-found.effect, abs=1e-9)
    assert turned.noise.sum() == pytest.approx(found.noise.sum(), abs=1e-9)
    if len(rows) == 1:
        assert found.noise.sum() == pytest.approx(error**2, abs=1e-9)


def test_a_ratio_that_all_routes_have_has_no_noise_of_the_mix() -> None:
    """One route of 10 tokens and one of 10,000, both half as many again: they vary by 1 % alone."""
    cells = [
        Cell(
            side, str(mean), f"{side}{n % 3}", 0, count, count * (of := mean * times), count * 1.0001 * of**2
        )
        for side, times in ((0, 1.5), (1, 1.0))
        for n, (mean, count) in enumerate([(10, 50), (10_000, 7), (10, 3), (10_000, 40)])
    ]
    found = ratio(tabulated(cells))
    assert found is not None
    assert math.exp(found.effect.item()) == pytest.approx(1.5)
    assert found.noise.sum() < 1e-5
    assert found.clusters["process"][0] == pytest.approx(0, abs=1e-12)


def test_of_many_processes_it_is_the_cluster_robust_error_of_statsmodels() -> None:
    from statsmodels.regression.linear_model import OLS

    random = np.random.default_rng(1)
    groups: dict[tuple[int, str, str, int], list[float]] = {}
    for process in range(120):
        level = random.normal(0, 0.3)
        for route in random.integers(0, 3, random.integers(20, 40)).tolist():
            block = process % 2, str(route), str(process), process % 2
            groups.setdefault(block, []).append(10 * route + level + random.normal())
    found = judged(
        [
            Cell(side, route, process, time, len(v), sum(v), sum(x * x for x in v))
            for (side, route, process, time), v in groups.items()
        ]
    )
    flat = [(*block, value) for block, values in groups.items() for value in values]
    design = np.array([[1.0 - side, *(float(route == r) for r in "012")] for side, route, *_ in flat])
    clusters = [int(process) for _, _, process, *_ in flat]
    fitted = OLS([row[-1] for row in flat], design).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    assert found.effect == pytest.approx(fitted.params[0])
    assert found.error == pytest.approx(fitted.bse[0], rel=0.03)


@pytest.mark.parametrize("sizes", [[6] * 8, [1, 2, 3, 1, 5, 1, 2, 3]])
def test_over_all_ways_to_divide_eight_processes_the_variance_is_right(sizes: list[int]) -> None:
    """All 70: of processes with as many traces each, its mean is exactly the variance that the effect has.

    Then the smallest p-values belong to the largest differences, as in the permutation test.
    """
    random = Random(1)
    levels = [random.gauss(10, 1) for _ in sizes]
    found = [
        judged(
            [
                Cell(
                    int(place not in chosen), "s", str(place), 0, n * 10**6, n * 10**6 * v, n * 10**6 * v * v
                )
                for place, (n, v) in enumerate(zip(sizes, levels, strict=True))
            ]
        )
        for chosen in combinations(range(8), 4)
    ]
    true = sum(one.effect**2 for one in found)
    assert sum(one.p_value() < 0.05 for one in found) <= 0.05 * 70
    if len({*sizes}) == 1:
        assert sum(one.variance for one in found) == pytest.approx(true, rel=1e-3)
        found.sort(key=lambda one: -abs(one.effect))
        p_values = [one.p_value() for one in found]
        assert all(one <= other + 1e-9 for one, other in pairwise(p_values))
    else:
        assert true < sum(one.variance for one in found) < 1.5 * true


@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 100)])
def test_over_all_numbers_of_errors_one_in_twenty_is_seen_at_most(n: int, m: int) -> None:
    """Every outcome of n and m traces that fail as often, with its probability."""
    from scipy import stats

    seen = np.zeros((n + 1, m + 1))
    for x in range(n + 1):
        for y in range(m + 1):
            found = contrast(tabulated(failing([(x, n, y, m)])), is_share=True)
            one = replace(estimated(found), step=1 / n + 1 / m)
            seen[x, y] = one.p_value() < 0.05
    for rate in (0.01, 0.05, 0.2, 0.5):
        of_first, of_second = (stats.binom.pmf(np.arange(k + 1), k, rate) for k in (n, m))
        assert of_first @ seen @ of_second <= 0.05
