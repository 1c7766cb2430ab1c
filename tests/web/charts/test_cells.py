"""Charts in the cells of a table."""

from __future__ import annotations

from wherefrom.analysis import Verdict
from wherefrom.web.charts.cells import make_scales

from .comparisons import judged, make_row
from .svg import named, parse, texts, with_class

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
