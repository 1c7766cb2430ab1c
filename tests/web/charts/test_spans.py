"""From when to when, as a bar."""

from __future__ import annotations

from wherefrom.web.charts.cells import draw_span, span_axis, span_labels

from .svg import named, parse, texts, with_class

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
