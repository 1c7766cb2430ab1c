"""From groups to rows: the figures of each value, and the verdict on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import nlargest
from typing import Any, Final

from ..exceptions import FilterError
from ..stores import Store
from .grouping import find_grouping, make_parts
from .groups import Group, Groups, read_groups
from .histogram import count_steps, make_edges
from .intervals import Interval, quantile, quantile_interval, wilson
from .pairs import Pair
from .results import Comparison, Row
from .scope import scope
from .significance import Sample
from .verdict import Judgement, judge

MAX_VALUES: Final = 100

_MS_PER_HOUR: Final = 3_600_000

Choice = tuple[str | None, list[Pair]]
"""The baseline, where it is one, and what is compared with what."""


def compare_pairs(
    by: str,
    filter_string: str | None,
    choose: Callable[[Sequence[Group]], Choice],
    *,
    experiment: str | None,
    store: Store | str | None,
    confidence: float,
) -> Comparison:
    """Compare the values of ``by`` as ``choose`` pairs them."""
    if not 0 < confidence < 1:
        raise FilterError(f"confidence is between 0 and 1, as 0.95 is, not {confidence!r}")
    groups = _read(by, filter_string, experiment, store)
    shown = _largest(groups.found)
    baseline, pairs = choose(shown)
    judged = {
        pair.group.value: (pair.other.value, judgement)
        for pair, judgement in zip(pairs, judge(pairs, confidence), strict=True)
    }
    edges = make_edges(group.durations for group in shown)
    return Comparison(
        by=by,
        rows=tuple(_row(group, confidence, edges, *judged.get(group.value, (None, None))) for group in shown),
        baseline=baseline,
        left_out=groups.left_out,
        other_values=len(groups.found) - len(shown),
        tests=sum(len(list(judgement.tests)) for _, judgement in judged.values()),
        confidence=confidence,
        filter_string=filter_string,
        experiment=experiment,
        edges=tuple(edge / 1000 for edge in edges),
    )


def _read(by: str, filter_string: str | None, experiment: str | None, store: Store | str | None) -> Groups:
    with scope(store, filter_string, experiment) as inside:
        return read_groups(inside, make_parts(find_grouping(by, inside), inside))


def _largest(groups: Sequence[Group]) -> list[Group]:
    """Those with the most traces, in the order in which they came."""
    if len(groups) <= MAX_VALUES:
        return list(groups)
    least = nlargest(MAX_VALUES, range(len(groups)), key=lambda place: groups[place].traces)
    return [groups[place] for place in sorted(least)]


def _row(
    group: Group,
    confidence: float,
    edges: Sequence[float],
    against: str | None,
    judgement: Judgement | None,
) -> Row:
    compared: dict[str, Any] = {}
    if judgement is not None:
        errors, latency, tail = judgement.tests.errors, judgement.tests.latency, judgement.tests.tail
        compared = {
            "against": against,
            "error_difference": errors,
            "latency_difference": latency,
            "tail_difference": tail,
            "verdict": judgement.verdict,
            "reason": judgement.reason,
        }
    return Row(
        value=group.value,
        traces=group.traces,
        errors=group.errors,
        error_rate=group.errors / group.traces,
        error_rate_interval=wilson(group.errors, group.traces, confidence),
        **_percentiles(group.durations, confidence),
        traces_per_hour=_per_hour(group),
        first_seen=group.first_seen,
        last_seen=group.last_seen,
        tokens=group.tokens,
        histogram=count_steps(group.durations, edges),
        **compared,
    )


def _percentiles(durations: Sample, confidence: float) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
        figures[name] = quantile(durations, share) / 1000 if durations else None
        figures[f"{name}_interval"] = _in_ms(quantile_interval(durations, share, confidence))
    return figures


def _in_ms(interval: Interval) -> Interval:
    low, high = interval.low, interval.high
    return Interval(None if low is None else low / 1000, None if high is None else high / 1000)


def _per_hour(group: Group) -> float | None:
    hours = (group.last_seen - group.first_seen) / _MS_PER_HOUR
    return group.traces / hours if hours else None
