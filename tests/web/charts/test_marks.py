"""Marks: values and intervals land where they should."""

from __future__ import annotations

import pytest

from wherefrom.analysis import Interval, Verdict
from wherefrom.web.charts.marks import (
    draw_span,
    grid,
    labels,
    latencies,
    latency_marks,
    make_axis,
    make_logarithmic,
    make_scales,
    make_time_axis,
    ms_label,
    percent_label,
    rate_marks,
    span_axis,
    span_labels,
    spoken,
    time_labels,
)

from .comparisons import judged, make_row
from .svg import named, number, numbers, parse, texts, with_class

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOVEMBER_14 = 1_700_000_000_000 // DAY * DAY


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (0, [0, 0.25, 0.5, 0.75, 1]),
        (0.07, [0, 0.02, 0.04, 0.06, 0.08]),
        (1, [0, 0.25, 0.5, 0.75, 1]),
        (410, [0, 200, 400, 600]),
        (1000, [0, 250, 500, 750, 1000]),
    ],
)
def test_ticks_are_round(highest: float, ticks: list[float]) -> None:
    axis = make_axis([highest / 2, highest])
    assert list(axis.ticks) == pytest.approx(ticks)
    assert axis.share(0) == 0
    assert axis.share(axis.high) == 1


def test_an_axis_bends_where_values_lie_far_apart() -> None:
    axis = make_axis([3, 40_000], may_bend=True)
    assert axis.is_logarithmic
    assert list(axis.ticks) == pytest.approx([1, 100, 10_000])
    assert axis.share(0) == 0
    assert axis.share(axis.high) == 1
    assert axis.share(3) == pytest.approx(0.4771 / 5, rel=1e-3)
    assert not make_axis([30, 40], may_bend=True).is_logarithmic


def test_places_are_percentages_with_room_for_half_a_mark() -> None:
    axis = make_axis([1])
    assert [axis.at(value) for value in (-1, 0, 0.5, 1, 2)] == ["2.5%", "2.5%", "50%", "97.5%", "97.5%"]
    assert axis.place(0.5, 400) == 200


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (18, 430, [20, 50, 100, 200]),
        (1.2, 900, [3, 10, 30, 100, 300]),
        (1.2, 9_000, [10, 100, 1000]),
        (0.001, 5e9, [0.001, 1, 1000, 1e6, 1e9]),
        (3.1, 4.7, [3.5, 4, 4.5]),
    ],
)
def test_ticks_of_a_logarithmic_axis(low: float, high: float, ticks: list[float]) -> None:
    axis = make_logarithmic(low, high)
    assert (axis.low, axis.high) == (low, high)
    assert len(axis.ticks) <= 6
    assert list(axis.ticks) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("span", "first", "shown"),
    [
        (40 * 1000, 0, ["Nov 14", "00:00:10", "00:00:20", "00:00:30"]),
        (30 * MINUTE, 5 * MINUTE, ["Nov 14, 00:10", "00:20", "00:30"]),
        (8 * HOUR, 19 * HOUR, ["Nov 14, 20:00", "22:00", "Nov 15", "02:00"]),
        (3 * DAY, HOUR, ["Nov 15", "Nov 16", "Nov 17"]),
        (0, 0, ["Nov 14"]),
    ],
)
def test_ticks_of_time_are_round_and_tell_the_day_once(span: int, first: int, shown: list[str]) -> None:
    axis = make_time_axis(NOVEMBER_14 + first, NOVEMBER_14 + first + span)
    assert texts(parse(time_labels(axis, 0)))[: len(shown)] == shown
    assert len(axis.ticks) <= 5


def test_times_beyond_any_calendar_are_drawn_too() -> None:
    axis = make_time_axis(10**17, 10**18)
    assert len(axis.ticks) <= 5
    assert set(texts(parse(time_labels(axis, 0)))) == {""}
    assert spoken(10**18) == f"{10**18} ms since 1970"


def test_an_error_rate_is_a_dot_on_the_bar_of_its_interval() -> None:
    axis = make_axis([0.2])
    root = parse(rate_marks(make_row("1.0"), axis, 14))
    (dot,) = named(root, "circle")
    bar, *ends = with_class(root, "reach")
    assert dot.get("cx") == axis.at(0.1) == "50%"
    assert number(bar.get("x1")) == pytest.approx(2.5 + 0.95 * 25)
    assert number(bar.get("x2")) == pytest.approx(97.5)
    assert list(numbers(ends, "x1")) == [number(bar.get("x1")), number(bar.get("x2"))]
    assert {dot.get("cy"), bar.get("y1"), bar.get("y2")} == {"14"}


def test_percentiles_have_a_shape_each_and_only_whole_intervals_a_bar() -> None:
    axis = make_axis([200])
    root = parse(latency_marks(make_row("1.0"), axis, 14))
    dot, ring = named(root, "circle")
    (diamond,) = named(root, "svg")[1:]
    assert (dot.get("cx"), diamond.get("x"), ring.get("cx")) == (axis.at(50), axis.at(100), axis.at(150))
    assert len(with_class(root, "reach")) == 3
    (thread,) = with_class(root, "thread")
    assert (thread.get("x1"), thread.get("x2")) == (axis.at(50), axis.at(150))


def test_without_durations_there_is_no_latency() -> None:
    nothing = Interval(None, None)
    row = make_row("1.0", p50=None, p95=None, p99=None, p50_interval=nothing, p95_interval=nothing)
    assert latency_marks(row, make_axis([1]), 14) == ""
    assert list(latencies(row)) == []


def test_an_axis_is_lines_and_labels_at_its_ticks() -> None:
    axis = make_axis([0.2])
    assert list(numbers(named(parse(grid(axis, 0, 10)), "line"), "x1")) == [2.5, 26.25, 50, 73.75, 97.5]
    root = parse(labels(axis, 20, percent_label))
    assert texts(root) == ["0 %", "5 %", "10 %", "15 %", "20 %"]
    anchors = [one.get("text-anchor") for one in named(root, "text")]
    assert anchors == ["start", "middle", "middle", "middle", "end"]


def test_durations_have_the_unit_that_keeps_them_short() -> None:
    shown = [ms_label(ms) for ms in (0, 0.02, 5, 2500, 90_000)]
    assert shown == ["0 ms", "20 µs", "5 ms", "2.5 s", "1.5 min"]


ROWS = [make_row("1.0"), judged("1.1", Verdict.WORSE, error_rate=0.2)]


def test_rows_share_their_axes() -> None:
    scales = make_scales(ROWS)
    rates = [named(parse(scales.rate(row)), "circle")[0].get("cx") for row in ROWS]
    assert rates == ["50%", "97.5%"]
    dots = {named(parse(scales.duration(row)), "circle")[0].get("cx") for row in ROWS}
    assert dots == {scales.durations.at(50)}
    assert texts(parse(scales.rate_labels()))[-1] == "20 %"
    assert texts(parse(scales.duration_labels()))[-1] == "150 ms"


def test_cells_are_drawn_in_the_tone_of_the_verdict_and_hidden_from_readers_of_the_words() -> None:
    root = parse(make_scales(ROWS).rate(ROWS[1]))
    assert with_class(root, "worse")
    assert [one.get("aria-hidden") for one in with_class(root, "chart")] == ["true"]


DAY = 86_400_000
START = 1_700_000_000_000 // DAY * DAY
AXIS = span_axis(START, START + 4 * DAY, [(0, START), (START + DAY, START + 5 * DAY)])


def test_a_bar_goes_from_the_first_to_the_last() -> None:
    root = parse(draw_span(AXIS, START + DAY, START + 2 * DAY))
    (bar,) = with_class(root, "lasting")
    assert (bar.get("x1"), bar.get("x2")) == ("26.25%", "50%")
    assert not named(root, "path")


def test_an_end_beyond_the_axis_has_an_arrow() -> None:
    root = parse(draw_span(AXIS, START - 1, START + 5 * DAY))
    (bar,) = with_class(root, "lasting")
    assert (bar.get("x1"), bar.get("x2")) == ("2.5%", "97.5%")
    assert [one.get("x") for one in named(root, "svg")[2:]] == ["2.5%", "97.5%"]


def test_the_axis_tells_its_days() -> None:
    assert texts(parse(span_labels(AXIS)))[:2] == ["Nov 14", "Nov 15"]


def test_the_axis_is_no_longer_than_what_it_shows() -> None:
    axis = span_axis(0, START + 9 * DAY, [(START, START + DAY), (START + DAY, START + 2 * DAY)])
    assert (axis.low, axis.high) == (START, START + 2 * DAY)
