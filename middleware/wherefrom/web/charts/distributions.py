"""Latency distributions of several values in one chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from ..._units import duration
from ...analysis import Comparison, Row, Verdict
from .marks import Axis, grid, labels, make_logarithmic, ms_label
from .svg import SERIES, Drawing, cut, element, joined

MOST: Final = 6  # more curves cannot be told apart
_RANK: Final = {Verdict.WORSE: 0, Verdict.BETTER: 1, Verdict.NO_DIFFERENCE: 2, Verdict.TOO_FEW: 3, None: 2}


def choose_rows(comparison: Comparison, most: int = MOST) -> list[Row]:
    """At most ``most`` rows in their order: the baseline, then those that differ, then the newest."""
    rows = comparison.rows
    ranked = sorted(
        range(len(rows)),
        key=lambda place: (rows[place].value != comparison.baseline, _RANK[rows[place].verdict], -place),
    )
    return [rows[place] for place in sorted(ranked[:most])]


def timed_rows(comparison: Comparison) -> list[Row]:
    """The chosen rows that have enough durations for a curve."""
    chosen = choose_rows(comparison)
    return [row for row in chosen if any(row.histogram) and row.verdict is not Verdict.TOO_FEW]


HEIGHT: Final = 150.0
KEY: Final = 18
_LABELS: Final = 22
_WIDTH: Final = 1000.0
_MOST_CHARACTERS: Final = 28


def draw_distributions(
    comparison: Comparison,
    rows: Sequence[Row],
    link: Callable[[Row], str | None] = lambda _: None,
    *,
    width: float = _WIDTH,
    height: float = HEIGHT,
) -> Drawing:
    """The latency distributions of at most six ``rows``, each with its own colour and dash.

    Heights are shares of the traces of a row, so rows of different sizes compare. ``link`` returns the
    address of a row's traces. ``width`` is that of the finished chart if it is known, ``height`` that of the
    curves, both in pixels.
    """
    axis = make_logarithmic(comparison.edges[0], comparison.edges[-1])
    highest = max((max(_shares(row), default=0) for row in rows), default=0)
    plot = _Plot(comparison.edges, axis, width, height, highest or 1)
    top = KEY * len(rows) + 6
    drawn = list(zip(rows, SERIES, strict=False))
    typical = ", ".join(f"{cut(row.value, _MOST_CHARACTERS)} {_typical(row)}" for row in rows)
    return Drawing(
        joined(
            grid(axis, top, top + height),
            *(plot.curve(row, top, style) for row, style in drawn),
            labels(axis, top + height + 16, ms_label),
            *(_key(row, style, KEY * place + 12, link(row)) for place, (row, style) in enumerate(drawn)),
        ),
        height=top + height + _LABELS,
        title=f"Latency by {cut(comparison.by, _MOST_CHARACTERS)}",
        description=f"Share of traces by duration. {typical}.",
        has_links=any(link(row) for row in rows),
    )


@dataclass(frozen=True, slots=True)
class _Plot:
    """The area of the curves; ``highest`` is the share at its top."""

    edges: Sequence[float]
    axis: Axis
    width: float
    height: float
    highest: float

    def curve(self, row: Row, top: float, style: str) -> Markup:
        """The curve of a row. A path cannot have percentages: it is scaled, its line is not."""
        path = self._steps(_shares(row))
        return element(
            "svg",
            element("path", style=f"{style} area", d=path),
            element("path", style=f"line {style}", d=path, vector_effect="non-scaling-stroke"),
            y=top,
            width="100%",
            height=self.height,
            viewBox=f"0 0 {self.width:g} {self.height:g}",
            preserveAspectRatio="none",
        )

    def _steps(self, shares: Sequence[float]) -> str:
        path = [f"M{self._x(self.edges[0])} {self.height:g}"]
        for edge, share in zip(self.edges[1:], shares, strict=True):
            path.append(f"V{self.height * (1 - share / self.highest):.1f}H{self._x(edge)}")
        return "".join([*path, f"V{self.height:g}"])

    def _x(self, ms: float) -> str:
        return f"{self.axis.place(ms, self.width):.1f}"


def _shares(row: Row) -> list[float]:
    total = sum(row.histogram) or 1
    return [count / total for count in row.histogram]


def _typical(row: Row) -> str:
    return "" if row.p50 is None else f"p50 {duration(row.p50 * 1e6)}"


def _key(row: Row, style: str, y: float, href: str | None) -> Markup:
    sample = element("line", style=f"line {style}", x1=0, x2=28, y1=y - 4, y2=y - 4, stroke_width=2.5)
    name = element("text", cut(row.value, _MOST_CHARACTERS), style="ink strong", x=36, y=y)
    typical = element("text", _typical(row), style="muted", x="100%", y=y, text_anchor="end")
    inside = joined(sample, name, typical)
    return inside if href is None else element("a", inside, href=href)
