"""Charts for templates, with links from their marks to the traces behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from ..analysis import Bucket, Deployment, Row
from ..analysis.comparison import Report
from ..analysis.timeline import Trends
from ..query.edit import join_filters
from ..query.forgiving import spell_out
from .charts import trends as trends_chart
from .charts.distributions import choose_rows, draw_distributions, timed_rows
from .charts.marks import Axis, draw_span, make_scales, span_axis, span_labels
from .charts.svg import SIGNS, TONES, Drawing
from .charts.timeline import Event, draw_timeline

__all__ = [
    "SIGNS",
    "TONES",
    "deployed_axis",
    "deployed_traces",
    "draw_latencies",
    "draw_span",
    "draw_times",
    "draw_trends",
    "events",
    "joined",
    "make_scales",
    "span_labels",
    "traces_of",
]

_HEIGHT: Final = 240.0
_LONGEST: Final = 800  # characters of a condition: browsers and proxies limit addresses

Address = Callable[..., str]
"""``links.to``."""


def draw_latencies(report: Report, to: Address) -> Drawing | None:
    """The latency distributions; ``None`` without durations."""
    rows = timed_rows(report.comparison)
    if not rows:
        return None
    return draw_distributions(report.comparison, rows, lambda row: traces_of(report, to, row), height=_HEIGHT)


def draw_times(report: Report, to: Address) -> Drawing | None:
    """Requests and errors over time, with deployments; ``None`` without requests."""
    filters = {row.value: row.filter for row in choose_rows(report.comparison)}
    if not any(bucket.value in filters for bucket in report.timeline.buckets):
        return None

    def link(bucket: Bucket) -> str | None:
        until = bucket.start + report.timeline.width_ms
        return _link(to, report.filter, filters.get(bucket.value), since=bucket.start, until=until)

    return draw_timeline(report.timeline, list(filters), events(report.deployments, to), link)


def draw_trends(trends: Trends, to: Address, here: str) -> Drawing | None:
    """Requests, errors and durations over time; ``None`` without requests.

    ``here`` is the address of the page without a time range, to which a part of the chart is zoomed.
    """
    if not trends.trends:
        return None
    drawn = trends_chart.draw_trends(trends, events(trends.deployments, to))
    return replace(drawn, data={**drawn.data, "here": here})


def events(deployments: Iterable[Deployment], to: Address | None = None) -> list[Event]:
    """The first trace of each version, or of each deployment without a version, and a link to it."""
    first: dict[str, list[Deployment]] = {}
    for one in sorted(deployments, key=lambda one: one.first_seen):
        first.setdefault(one.version or one.name, []).append(one)
    return [_event(name, found, to) for name, found in first.items()]


def _event(name: str, deployments: Sequence[Deployment], to: Address | None) -> Event:
    one, *others = deployments
    until = one.last_seen + 1
    href = to and _link(to, None, one.filter, since=one.first_seen, until=until, order="oldest")
    return Event(one.first_seen, f"{name} ({len(others) + 1})" if others else name, href)


def deployed_axis(deployments: Iterable[Deployment], since: int, until: int) -> Axis:
    """The time axis for the deployments, within a time range."""
    return span_axis(since, until, ((one.first_seen, one.last_seen) for one in deployments))


def traces_of(
    report: Report, to: Address, row: Row, *, only: str | None = None, order: str | None = None
) -> str | None:
    """The link to the traces with a value, ``only`` some of them; ``None`` where no filter selects them."""
    return _link(to, report.filter, row.filter, only, since=report.since, until=report.until, order=order)


def deployed_traces(
    deployment: Deployment,
    to: Address,
    *,
    since: int,
    until: int,
    only: str | None = None,
    order: str | None = None,
) -> str | None:
    """The link to the traces of a deployment, ``only`` some; ``None`` where no filter selects them."""
    return _link(to, None, deployment.filter or None, only, since=since, until=until, order=order)


def joined(given: str | None, condition: str) -> str | None:
    """The filter of a page, as it was typed, and a condition; ``None`` if that is too long for a link."""
    text = join_filters(spell_out(given), condition)
    return text if len(text) <= _LONGEST else None


def _link(
    to: Address, given: str | None, condition: str | None, only: str | None = None, **more: Any
) -> str | None:
    """A link to the Traces page; ``None`` for a long condition, whose link would only fill the page."""
    if condition is None or len(condition) > _LONGEST:
        return None
    return to("/traces", filter=join_filters(given, condition, only), **more)
