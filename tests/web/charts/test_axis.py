"""Scales: where values land, and which ticks are shown."""

from __future__ import annotations

import pytest

from wherefrom.web.charts.axis import make_axis, make_logarithmic, make_time_axis, spoken, time_labels

from .svg import parse, texts

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
