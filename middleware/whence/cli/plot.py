"""A comparison as a picture: one SVG file that needs nothing else to be looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final
from xml.sax.saxutils import escape

from ..analysis import Comparison, Interval, Row, Verdict
from ..units import counted
from ..visible import visible
from .axis import Axis, make_axis

_WIDTH: Final = 1000
_TOP: Final = 92
_ROW: Final = 40
_BOTTOM: Final = 62
_LEFT: Final = 24
_ERRORS: Final = (230, 270)
_LATENCY: Final = (550, 270)
_VERDICT: Final = 850
_MOST_CHARACTERS: Final = 26

_BASELINE: Final = "#57606a"
_COLOURS: Final = {
    Verdict.WORSE: "#c62828",
    Verdict.BETTER: "#1a7f37",
    Verdict.NO_DIFFERENCE: "#31639c",
    Verdict.TOO_FEW: "#8a6100",
    None: _BASELINE,
}
_UNITS: Final = ((60_000, "min"), (1_000, "s"), (1, "ms"), (0.001, "µs"))

_PAGE: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"\
 role="img" font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="13"\
 fill="#1f2328">
<title>{title}</title>
<rect width="{width}" height="{height}" fill="#ffffff"/>
<text x="24" y="32" font-size="18" font-weight="600">{title}</text>
<text x="24" y="52" fill="#57606a">{subtitle}</text>
<text x="{errors}" y="76" font-weight="600">error rate, with its {confidence} % interval</text>
<text x="{latency}" y="76" font-weight="600">latency: ● p50  ◆ p95  ○ p99, with intervals</text>
{body}
<text x="24" y="{footer}" fill="#57606a" font-size="11">{note}</text>
</svg>
"""


def draw(comparison: Comparison) -> str:
    """The comparison as SVG: a line for each value, its error rate, its latencies and the verdict."""
    bottom = _TOP + _ROW * len(comparison.rows)
    errors = make_axis([row.error_rate_interval.high or 0 for row in comparison.rows], *_ERRORS)
    latency = make_axis(list(_latencies(comparison)), *_LATENCY, may_bend=True)
    body = [*_grid(errors, bottom, _percent_label), *_grid(latency, bottom, _ms_label)]
    for at, row in enumerate(comparison.rows):
        is_baseline = row.value == comparison.baseline
        body += _row(row, _TOP + _ROW * (at + 0.5), errors, latency, is_baseline=is_baseline)
    return _PAGE.format(
        width=_WIDTH,
        height=bottom + _BOTTOM,
        title=_text(f"Traces by {comparison.by}"),
        subtitle=_text(_subtitle(comparison)),
        errors=_ERRORS[0],
        latency=_LATENCY[0],
        confidence=f"{100 * comparison.confidence:g}",
        body="\n".join(body),
        footer=bottom + _BOTTOM - 14,
        note=_text(_note(comparison)),
    )


def _subtitle(comparison: Comparison) -> str:
    total = counted(sum(row.traces for row in comparison.rows), "trace")
    where = f" where {comparison.filter_string}" if comparison.filter_string else ""
    inside = f" in {comparison.experiment}" if comparison.experiment else ""
    return _cut(f"{total}{inside}{where}", 130)


def _note(comparison: Comparison) -> str:
    told = [f"verdicts at a corrected p-value below {1 - comparison.confidence:.2g}"]
    if comparison.left_out:
        told.append(f"{counted(comparison.left_out, 'trace')} without {_cut(comparison.by)} left out")
    if comparison.other_values:
        told.append(f"{counted(comparison.other_values, 'value')} with fewer traces left out")
    return "; ".join(told)


def _latencies(comparison: Comparison) -> Iterator[float]:
    for row in comparison.rows:
        ends = (row.p50_interval.low, row.p50, row.p95, row.p95_interval.high, row.p99)
        yield from (value for value in ends if value is not None)


def _grid(axis: Axis, bottom: float, label: Callable[[float], str]) -> Iterator[str]:
    for tick in axis.ticks:
        x = f"{axis.place(tick):.1f}"
        yield f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}" stroke="#d8dee4"/>'
        yield (
            f'<text x="{x}" y="{bottom + 18}" text-anchor="middle" fill="{_BASELINE}" font-size="11">'
            f"{_text(label(tick))}</text>"
        )


def _row(row: Row, y: float, errors: Axis, latency: Axis, *, is_baseline: bool) -> Iterator[str]:
    colour = _COLOURS[row.verdict]
    yield f"<g><title>{_text(_whole(row))}</title>"
    yield f'<text x="{_LEFT}" y="{y}" font-weight="600">{_text(_cut(row.value))}</text>'
    traces = f"{counted(row.traces, 'trace')}, {counted(row.errors, 'error')}"
    yield f'<text x="{_LEFT}" y="{y + 14}" fill="{_BASELINE}" font-size="11">{_text(traces)}</text>'
    yield from _interval(errors, row.error_rate_interval, y, colour)
    yield f'<circle cx="{errors.place(row.error_rate):.1f}" cy="{y}" r="5" fill="{colour}"/>'
    yield from _latency(row, y, latency, colour)
    verdict = row.verdict or ("baseline" if is_baseline else "")
    yield f'<text x="{_VERDICT}" y="{y + 4}" fill="{colour}" font-weight="600">{_text(verdict)}</text></g>'


def _latency(row: Row, y: float, axis: Axis, colour: str) -> Iterator[str]:
    if row.p50 is None or row.p95 is None or row.p99 is None:
        return
    x50, x95, x99 = (axis.place(value) for value in (row.p50, row.p95, row.p99))
    yield f'<line x1="{x50:.1f}" y1="{y}" x2="{x99:.1f}" y2="{y}" stroke="{colour}" stroke-dasharray="2 3"/>'
    for interval in (row.p50_interval, row.p95_interval):
        yield from _interval(axis, interval, y, colour)
    yield f'<circle cx="{x50:.1f}" cy="{y}" r="5" fill="{colour}"/>'
    yield f'<path d="M{x95:.1f} {y - 6}l6 6l-6 6l-6 -6z" fill="{colour}"/>'
    yield f'<circle cx="{x99:.1f}" cy="{y}" r="4" fill="#ffffff" stroke="{colour}" stroke-width="1.5"/>'


def _interval(axis: Axis, interval: Interval, y: float, colour: str) -> Iterator[str]:
    """A bar with both its ends; an end that is not known has none to show."""
    if interval.low is None or interval.high is None:
        return
    low, high = axis.place(interval.low), axis.place(interval.high)
    yield (
        f'<path d="M{low:.1f} {y - 5}v10m0 -5H{high:.1f}m0 -5v10" stroke="{colour}" stroke-width="1.5"'
        ' stroke-opacity="0.6" fill="none"/>'
    )


def _whole(row: Row) -> str:
    if row.verdict is None:
        return row.value
    return f"{row.value} against {row.against}: {row.verdict}; {row.reason}"


def _percent_label(share: float) -> str:
    return f"{100 * share:.4g} %"


def _ms_label(ms: float) -> str:
    size, unit = next(((size, unit) for size, unit in _UNITS if ms >= size), (1, "ms"))
    return f"{ms / size:.3g} {unit}"


def _cut(text: str, most: int = _MOST_CHARACTERS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(text: str) -> str:
    """Text of strangers as XML takes it: some characters are forbidden there, however they are escaped."""
    return escape(visible(text))
