"""Distributions over each other."""

from __future__ import annotations

import re

import pytest

from wherefrom.web.charts.distributions import draw_distributions
from wherefrom.web.charts.marks import make_logarithmic

from .comparisons import EDGES, make_comparison, make_row
from .svg import HOSTILE, named, parse, texts, with_class


def outline(path: str) -> tuple[list[float], list[float]]:
    """The heights and the places of the steps."""
    return [float(y) for y in re.findall(r"V([\d.]+)", path)], [
        float(x) for x in re.findall(r"H([\d.]+)", path)
    ]


def test_an_outline_has_a_step_for_each_bar_and_shares_for_heights() -> None:
    few = make_row("1.1", histogram=(1, 0, 3, 0))
    comparison = make_comparison(make_row("1.0"), few)
    root = parse(draw_distributions(comparison, comparison.rows, height=100))
    first, second = (outline(line.get("d") or "") for line in with_class(root, "line") if line.get("d"))
    axis = make_logarithmic(EDGES[0], EDGES[-1])
    assert first[1] == pytest.approx([axis.place(edge, 1000) for edge in EDGES[1:]], abs=0.1)
    assert first[0] == pytest.approx([100, 66.7, 33.3, 66.7, 100])
    assert second[0] == pytest.approx([66.7, 100, 0, 100, 100])


def test_each_is_named_and_told_apart_without_colours() -> None:
    rows = [make_row(f"1.{number}") for number in range(8)]
    drawing = draw_distributions(make_comparison(*rows), rows[:6])
    root = parse(drawing)
    assert [f"1.{number}" for number in range(6)] == [text for text in texts(root) if text.startswith("1.")]
    assert len({line.get("stroke-dasharray") for line in with_class(root, "line")}) == 6
    assert root.get("role") == "img"
    assert texts(root).count("p50 50.0 ms") == 6
    (description,) = named(root, "desc")
    assert "1.0 p50 50.0 ms, 1.1 p50 50.0 ms" in (description.text or "")


def test_a_name_leads_to_its_traces() -> None:
    rows = [make_row("1.0"), make_row(HOSTILE)]
    root = parse(draw_distributions(make_comparison(*rows), rows, lambda row: f"/traces?v={row.value[:3]}"))
    assert [link.get("href") for link in named(root, "a")] == ["/traces?v=1.0", "/traces?v=</t"]
    assert root.get("role") == "group"
    assert not named(root, "script")


def test_nothing_is_drawn_of_empty_histograms() -> None:
    row = make_row("1.0", p50=None, histogram=(0, 0, 0, 0))
    root = parse(draw_distributions(make_comparison(row), [row], height=100))
    assert outline(with_class(root, "line")[0].get("d") or "")[0] == [100.0] * 5
