"""A comparison as one SVG or PNG file, for example for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from textwrap import wrap
from typing import Final

from markupsafe import Markup

from ..._sanitize import visible
from ..._units import counted
from ...analysis import Comparison, Row, Timeline, headline, sentence, summary
from ...exceptions import MissingExtraError, WherefromError
from .distributions import HEIGHT, KEY, choose_rows, draw_distributions, timed_rows
from .marks import (
    Axis,
    grid,
    labels,
    latencies,
    latency_marks,
    make_axis,
    ms_label,
    percent_label,
    rate_marks,
    spoken,
)
from .svg import FONT, SIGNS, TONES, Drawing, cut, element, joined
from .timeline import Event, draw_timeline

WIDTH: Final = 1000
_EDGE: Final = 24
_ROW: Final = 40
_ERRORS: Final = (230, 260)
_LATENCY: Final = (520, 290)
_VERDICT: Final = 828
_HALF: Final = 456
_LINE: Final = 18
_HIGHEST: Final = 320.0
_MOST_SENTENCES: Final = 4
_CHARACTERS: Final = 26
_WIDE_CHARACTERS: Final = 140


def draw(
    comparison: Comparison,
    timeline: Timeline | None = None,
    events: Iterable[Event] = (),
    window: tuple[int, int] | None = None,
) -> str:
    """The comparison as SVG on a light background.

    From top to bottom: the verdicts as sentences, a row for each value with its error rate, latencies and
    verdict, the latency distributions and, with a ``timeline``, requests over time. ``window`` is the time
    range in ms since the epoch.
    """
    words, top = _words(comparison)
    rows, bottom = _rows(comparison, top)
    charts = _charts(comparison, timeline, events)
    places = zip(charts, (_EDGE, WIDTH - _EDGE - _HALF), strict=False)
    below = [chart.placed(x, bottom + 16, _HALF) for chart, x in places]
    end = bottom + max((chart.height + 42 for chart in charts), default=0) + 40
    title = f"Traces by {comparison.by}: {headline(comparison)}"
    return element(
        "svg",
        element("title", title),
        element("desc", " ".join(one.text for one in summary(comparison)[:_MOST_SENTENCES])),
        element("rect", style="paper", width=WIDTH, height=end),
        element("text", cut(title, 90), style="ink strong", x=_EDGE, y=34, font_size=18),
        element("text", _subtitle(comparison, window), style="muted", x=_EDGE, y=54, font_size=13),
        *words,
        rows,
        *below,
        element("text", _note(comparison), style="muted", x=_EDGE, y=end - 14),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {end:g}",
        width=WIDTH,
        height=end,
        role="img",
        font_family=FONT,
        font_size=13,
    )


def _words(comparison: Comparison) -> tuple[list[Markup], float]:
    """The first verdicts, each with its sign, and the y position below them."""
    shown: list[Markup] = []
    y = 80.0
    for one in summary(comparison)[:_MOST_SENTENCES]:
        sign, tone = SIGNS[one.verdict], TONES[one.verdict]
        shown.append(element("text", sign, style=f"{tone} fill", x=_EDGE, y=y))
        for line in _wrapped(one.text):
            shown.append(element("text", line, style="ink", x=_EDGE + 18, y=y))
            y += _LINE
    return shown, y


def _wrapped(text: str) -> list[str]:
    """At most two lines; a p-value is not broken across lines."""
    whole = re.sub(r"p ([<=]) ", r"p\0\1\0", visible(text))
    lines = wrap(whole, _WIDE_CHARACTERS, max_lines=2, placeholder=" …")
    return [line.replace("\0", " ") for line in lines]


def _rows(comparison: Comparison, top: float) -> tuple[Markup, float]:
    first, bottom = top + 30, top + 30 + _ROW * len(comparison.rows)
    errors = make_axis([row.error_rate_interval.high or 0 for row in comparison.rows])
    latency = make_axis([value for row in comparison.rows for value in latencies(row)], may_bend=True)
    rates = f"error rate, {100 * comparison.confidence:g} % confidence interval"
    columns = [
        element(
            "text",
            rates,
            style="ink strong",
            x=_ERRORS[0],
            y=top + 14,
        ),
        element("text", "latency: ● p50  ◆ p95  ○ p99", style="ink strong", x=_LATENCY[0], y=top + 14),
        _column(_ERRORS, joined(grid(errors, first, bottom), labels(errors, bottom + 18, percent_label))),
        _column(_LATENCY, joined(grid(latency, first, bottom), labels(latency, bottom + 18, ms_label))),
    ]
    lines = [
        _row(row, first + _ROW * (place + 0.5), errors, latency, is_baseline=row.value == comparison.baseline)
        for place, row in enumerate(comparison.rows)
    ]
    return joined(*columns, *lines), bottom + 28


def _column(place: tuple[int, int], content: Markup) -> Markup:
    x, width = place
    return element("svg", content, x=x, width=width, overflow="visible")


def _row(row: Row, y: float, errors: Axis, latency: Axis, *, is_baseline: bool) -> Markup:
    tone = TONES[row.verdict]
    figures = f"{counted(row.traces, 'trace')}, {counted(row.errors, 'error')}"
    verdict = f"{SIGNS[row.verdict]} {row.verdict}" if row.verdict else "baseline" if is_baseline else ""
    return element(
        "g",
        element("title", sentence(row) or row.value),
        element("text", cut(row.value, _CHARACTERS), style="ink strong", x=_EDGE, y=y),
        element("text", figures, style="muted", x=_EDGE, y=y + 14),
        _column(_ERRORS, rate_marks(row, errors, y)),
        _column(_LATENCY, latency_marks(row, latency, y)),
        element("text", verdict, style=f"{tone} fill strong", x=_VERDICT, y=y + 4),
        style=tone,
    )


def _charts(comparison: Comparison, timeline: Timeline | None, events: Iterable[Event]) -> list[Drawing]:
    """The latency distributions, and beside them, equally high, the requests over time."""
    values = [row.value for row in choose_rows(comparison)]
    beside = []
    if timeline is not None and any(bucket.value in values for bucket in timeline.buckets):
        beside = [draw_timeline(timeline, values, events)]
    timed = timed_rows(comparison)
    if not timed:
        return beside
    height = max(HEIGHT, *(chart.height - KEY * len(timed) - 28 for chart in beside), 0)
    return [draw_distributions(comparison, timed, width=_HALF, height=min(height, _HIGHEST)), *beside]


def _subtitle(comparison: Comparison, window: tuple[int, int] | None) -> str:
    total = counted(sum(row.traces for row in comparison.rows), "trace")
    where = f" where {comparison.filter_string}" if comparison.filter_string else ""
    inside = f" in {comparison.experiment}" if comparison.experiment else ""
    times = f", {spoken(window[0])} to {spoken(window[1])}" if window else ""
    return cut(f"{total}{inside}{times}{where}", _WIDE_CHARACTERS)


def _note(comparison: Comparison) -> str:
    notes = [f"verdicts at a corrected p-value below {1 - comparison.confidence:.2g}"]
    if comparison.left_out:
        notes.append(
            f"{counted(comparison.left_out, 'trace')} without {cut(comparison.by, _CHARACTERS)} excluded"
        )
    if comparison.other_values:
        notes.append(f"{counted(comparison.other_values, 'value')} with fewer traces excluded")
    return "; ".join(notes)


_ZOOM: Final = 2  # sharp on high-resolution screens


class NoFontError(WherefromError):
    """This machine has no font to draw text with."""


# A family that a machine lacks is replaced with any other one, which may have serifs, or with none.
_FAMILIES: Final = (
    "DejaVu Sans", "Noto Sans", "Liberation Sans", "Arial", "Helvetica", "Segoe UI", "Roboto", "Ubuntu",
    "Cantarell", "Open Sans", "FreeSans", "Nimbus Sans", "Verdana", "Lato", "Inter", "Noto Sans CJK SC",
    "Liberation Sans Narrow", "DejaVu Sans Condensed",
    "DejaVu Serif", "Liberation Serif", "Noto Serif", "FreeSerif", "Times New Roman", "DejaVu Sans Mono",
)  # fmt: skip
_MISSING: Final = "No Such Family"


def to_png(svg: str, fonts: tuple[str, ...] | None = None) -> bytes:
    """The picture as PNG, at twice its size, which is sharp on high-resolution screens.

    ``fonts`` are files to use instead of the fonts of the system.

    Raises:
        MissingExtraError: resvg-py is not installed.
        NoFontError: no font is installed.
    """
    family = _family(fonts)
    if family is None:
        raise NoFontError(
            "a PNG needs a font and none is installed (on Debian: fonts-dejavu-core);"
            " an SVG uses the fonts of its viewer"
        )
    return _render(svg, fonts, family)


@cache
def _family(fonts: tuple[str, ...] | None) -> str | None:
    """The family to draw with, without serifs if there is one; ``None`` without any font."""
    fallback, blank = (_render(_word(text, _MISSING), fonts, _MISSING) for text in ("M", ""))
    for name in _FAMILIES:
        if _render(_word("M", name), fonts, _MISSING) not in {fallback, blank}:
            return name
    return None if fallback == blank else _MISSING


def _word(text: str, family: str) -> str:
    shown = element("text", text, y=15, font_family=family)
    return element("svg", shown, xmlns="http://www.w3.org/2000/svg", width=20, height=20)


def _render(svg: str, fonts: tuple[str, ...] | None, family: str) -> bytes:
    try:
        from resvg_py import svg_to_bytes
    except ModuleNotFoundError as error:
        raise MissingExtraError("a picture as PNG", "ui") from error
    return svg_to_bytes(
        svg_string=svg,
        zoom=_ZOOM,
        skip_system_fonts=fonts is not None,
        font_files=[*fonts] if fonts else None,
        sans_serif_family=family,
        font_family=family,
    )
