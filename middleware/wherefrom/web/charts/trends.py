"""Requests, error rates and durations over time: a panel for each, with a line for each value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from ..._units import counted
from ...analysis.timeline import Trend, TrendPoint, Trends
from .marks import Axis, make_axis, make_time_axis, ms_label, percent_label, spoken, time_labels
from .svg import SERIES, Drawing, cut, element, joined, percent
from .timeline import Event, deployment_flags

_MINUTE: Final = 60_000
_NAME: Final = 18
_HEIGHT: Final = 56.0
_GAP: Final = 12
_KEY: Final = 18
_LABELS: Final = 20
_WIDTH: Final = 1000.0
_CHARACTERS: Final = 40


@dataclass(frozen=True, slots=True)
class _Measure:
    """What a panel shows of each step, ``None`` where there is nothing to show, and how it is spelled."""

    title: str
    of: Callable[[TrendPoint], float | None]
    spell: Callable[[float], str]


def _rate(point: TrendPoint) -> float | None:
    return point.errors / point.traces if point.traces else None


_MEASURES: Final = (
    _Measure("Requests", lambda point: point.traces, lambda number: f"{number:,.0f}"),
    _Measure("Error rate", _rate, percent_label),
    _Measure("p50", lambda point: point.p50, ms_label),
    _Measure("p95", lambda point: point.p95, ms_label),
    _Measure("p99", lambda point: point.p99, ms_label),
)


def draw_trends(trends: Trends, events: Iterable[Event] = ()) -> Drawing:
    """The panels, above one another over one time axis; each has a scale of its own, from 0.

    A line for each deployment goes through all of them. There must be a trend.
    """
    starts = [point.start for point in trends.trends[0].points]
    axis = make_time_axis(starts[0], starts[-1] + trends.width_ms)
    styles = SERIES if len(trends.trends) > 1 else SERIES[1:]
    drawn = list(zip(trends.trends, styles, strict=False))
    keys = [
        _key(trend, style, place) for place, (trend, style) in enumerate(drawn) if trend.value is not None
    ]
    inside = [event for event in events if axis.low <= event.at <= axis.high]
    flags, height = deployment_flags(inside, axis)
    above = _KEY * len(keys)
    top = above + height
    each = _NAME + _HEIGHT + _GAP
    bottom = top + each * len(_MEASURES)
    span = {"y1": top - 4, "y2": bottom - _GAP}
    lines = [
        element("line", style="deployment", x1=x, x2=x, **span) for x in (axis.at(one.at) for one in inside)
    ]
    panels = [
        _panel(measure, drawn, axis, trends.width_ms, top + each * place)
        for place, measure in enumerate(_MEASURES)
    ]
    by = "" if trends.by is None else f" by {cut(trends.by, _CHARACTERS)}"
    moved = element("svg", flags, y=above, width="100%", height=height, overflow="visible")
    return Drawing(
        joined(
            *keys,
            moved,
            *lines,
            *panels,
            _touches(trends, axis, top, bottom - _GAP),
            time_labels(axis, bottom + 4),
        ),
        height=bottom + _LABELS,
        title=f"Requests, error rate and durations over time{by}",
        description="; ".join(_summary(trend) for trend in trends.trends),
        has_links=any(event.href for event in inside),
        data={
            "start": starts[0],
            "width": trends.width_ms,
            "bars": len(starts),
            "margin": f"{axis.place(axis.low, 1):g}",
        },
    )


def _panel(
    measure: _Measure, drawn: Sequence[tuple[Trend, str]], axis: Axis, width_ms: int, top: float
) -> Markup:
    known = [value for trend, _ in drawn for one in trend.points if (value := measure.of(one)) is not None]
    scale = make_axis(known)
    floor = top + _NAME + _HEIGHT
    paths = [
        element("path", style=f"line {style}", d=_path(trend, measure, scale, axis, width_ms), **_UNSCALED)
        for trend, style in drawn
    ]
    return joined(
        element("text", measure.title, style="ink strong halo", x=0, y=top + 12),
        element(
            "text", measure.spell(scale.high), style="muted halo", x="100%", y=top + 12, text_anchor="end"
        ),
        element("line", style="grid", x1=0, x2="100%", y1=top + _NAME, y2=top + _NAME),
        element("line", style="grid", x1=0, x2="100%", y1=floor, y2=floor),
        element(
            "svg",
            *paths,
            y=top + _NAME,
            width="100%",
            height=_HEIGHT,
            viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
            preserveAspectRatio="none",
            overflow="visible",
        ),
    )


_UNSCALED: Final = {"vector_effect": "non-scaling-stroke"}


def _path(trend: Trend, measure: _Measure, scale: Axis, axis: Axis, width_ms: int) -> str:
    """A level for each step; without a value there is a gap."""
    path: list[str] = []
    is_open = False
    for point in trend.points:
        if (value := measure.of(point)) is None:
            is_open = False
            continue
        left, right = (axis.place(at, _WIDTH) for at in (point.start, point.start + width_ms))
        y = _HEIGHT * (1 - scale.share(value))
        path.append(f"{f'V{y:.1f}' if is_open else f'M{left:.1f} {y:.1f}'}H{right:.1f}")
        is_open = True
    return "".join(path)


def _touches(trends: Trends, axis: Axis, top: float, bottom: float) -> Markup:
    """For each step what was measured, shown below the pointer."""
    boxes = []
    for points in zip(*(trend.points for trend in trends.trends), strict=True):
        if not any(point.traces for point in points):
            continue
        start = points[0].start
        left, right = (axis.place(at, 1) for at in (start, start + trends.width_ms))
        figures = [_figures(trend, point) for trend, point in zip(trends.trends, points, strict=True)]
        moment = spoken(start, with_seconds=trends.width_ms < _MINUTE)
        title = element("title", f"{moment}: {'; '.join(figures)}")
        place = {"x": percent(left), "width": percent(right - left), "height": "100%"}
        boxes.append(element("rect", title, class_="touch", **place))
    return element(
        "svg", *boxes, class_="steps", y=top, width="100%", height=bottom - top, fill="transparent"
    )


def _figures(trend: Trend, point: TrendPoint) -> str:
    name = "" if trend.value is None else f"{cut(trend.value, _CHARACTERS)} "
    errors = f", {counted(point.errors, 'error')}" if point.errors else ""
    timed = (("p50", point.p50), ("p95", point.p95), ("p99", point.p99))
    shown = "".join(f", {share} {ms_label(ms)}" for share, ms in timed if ms is not None)
    return f"{name}{counted(point.traces, 'request')}{errors}{shown}"


def _summary(trend: Trend) -> str:
    name = "" if trend.value is None else f"{cut(trend.value, _CHARACTERS)}: "
    return f"{name}{counted(trend.traces, 'request')}, {counted(trend.errors, 'error')}"


def _key(trend: Trend, style: str, place: int) -> Markup:
    y = _KEY * place + 12
    sample = element("line", style=f"line {style}", x1=0, x2=28, y1=y - 4, y2=y - 4, stroke_width=2.5)
    name = element("text", cut(trend.value or "(empty)", _CHARACTERS), style="ink strong", x=36, y=y)
    total = (
        f"{counted(trend.traces, 'request')}, {percent_label(round(trend.errors / trend.traces, 4))} failed"
    )
    return joined(sample, name, element("text", total, style="muted", x="100%", y=y, text_anchor="end"))
