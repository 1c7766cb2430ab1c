"""Marks: values and intervals land where they should."""

from __future__ import annotations

import pytest

from wherefrom.analysis import Interval
from wherefrom.web.charts.axis import make_axis
from wherefrom.web.charts.marks import (
    grid,
    labels,
    latencies,
    latency_marks,
    ms_label,
    percent_label,
    rate_marks,
)

from .comparisons import make_row
from .svg import named, number, numbers, parse, texts, with_class


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
