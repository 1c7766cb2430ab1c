"""From groups to rows: the figures of each value, and the verdict on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from heapq import nlargest
from typing import Any, Final

from .. import keys
from ..exceptions import FilterError
from ..query.errors import did_you_mean
from ..stores import Store
from .groups import Group, Groups, find_grouping, make_parts, read_groups
from .pairs import MIN_TRACES, Pair
from .results import Comparison, Regression, Row, Verdict, Versions
from .scope import scope
from .statistics import Interval, Sample, count_steps, make_edges, quantile, quantile_interval, wilson
from .verdicts import Judgement, judge

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


_OFF = "false"


def compare(
    by: str = keys.APP_VERSION,
    filter_string: str | None = None,
    *,
    baseline: str | None = None,
    experiment: str | None = None,
    store: Store | str | None = None,
    confidence: float = 0.95,
) -> Comparison:
    """Compare the traces that pass a filter by the value that they have for ``by``.

    ``by`` is a field (``name``, ``status``, ``user``...), or a metadata key or tag (``region``,
    ``metadata.region``, ``tag.team``). Traces without it are left out and counted. The 100 values with the
    most traces are shown, in the order in which they were first seen.

    Every value is compared with ``baseline``: by default the one first seen, as the older release is, of
    those with traces enough to compare with. ``store`` is a store or its URL; by default that of the
    settings.

    Raises:
        FilterError: the filter cannot be read, nothing is named ``by``, or no trace has the baseline.
    """

    def choose(groups: Sequence[Group]) -> Choice:
        return _against(groups, _first(groups) if baseline is None else _named(groups, baseline, by))

    return compare_pairs(by, filter_string, choose, experiment=experiment, store=store, confidence=confidence)


def flag(
    name: str,
    filter_string: str | None = None,
    *,
    experiment: str | None = None,
    store: Store | str | None = None,
    confidence: float = 0.95,
) -> Comparison:
    """Compare by a feature flag, as ``record_feature_flag(name, value)`` recorded it.

    The baseline is ``"false"``; for a flag that is never off, the value first seen.

    Raises:
        FilterError: the filter cannot be read, or no trace carries the flag.
    """
    by = keys.FEATURE_FLAG_PREFIX + name.removeprefix(keys.FEATURE_FLAG_PREFIX)

    def choose(groups: Sequence[Group]) -> Choice:
        off = [group for group in groups if group.value == _OFF]
        return _against(groups, off[0] if off else _first(groups))

    return compare_pairs(by, filter_string, choose, experiment=experiment, store=store, confidence=confidence)


def _against(groups: Sequence[Group], baseline: Group | None) -> Choice:
    if baseline is None:
        return None, []
    return baseline.value, [Pair(group, baseline) for group in groups if group is not baseline]


def _first(groups: Sequence[Group]) -> Group | None:
    enough = (group for group in groups if group.traces >= MIN_TRACES)
    return next(enough, groups[0] if groups else None)


def _named(groups: Sequence[Group], value: str, by: str) -> Group:
    for group in groups:
        if group.value == value:
            return group
    known = [group.value for group in groups]
    raise FilterError(f"no trace to compare with has {by} {value!r}{did_you_mean(value, known)}")


def versions(
    filter_string: str | None = None,
    *,
    by: str = keys.APP_VERSION,
    experiment: str | None = None,
    store: Store | str | None = None,
    confidence: float = 0.95,
) -> Versions:
    """The releases in the order in which they were first seen, each compared with the one before it.

    A release with too few traces to compare with is passed over as the one before. ``regressions`` tells
    with which release things got worse, and which release made them better again.

    Raises:
        FilterError: the filter cannot be read, or nothing is named ``by``.
    """
    compared = compare_pairs(
        by, filter_string, _in_turn, experiment=experiment, store=store, confidence=confidence
    )
    known = {field.name: getattr(compared, field.name) for field in fields(Comparison)}
    return Versions(**known, regressions=tuple(find_regressions(compared.rows)))


def find_regressions(rows: Iterable[Row]) -> list[Regression]:
    """A regression begins with each release that is worse, and ends with the next one that is better.

    One that follows another before that is a regression too: what ends the later ends the earlier.
    """
    found: list[Regression] = []
    for row in rows:
        if row.verdict is Verdict.WORSE and row.against is not None:
            found.append(Regression(row.value, row.against, row.reason))
        elif row.verdict is Verdict.BETTER:
            found = [one if one.ended else replace(one, ended=row.value) for one in found]
    return found


def _in_turn(groups: Sequence[Group]) -> Choice:
    pairs: list[Pair] = []
    before: Group | None = None
    for group in groups:
        if before is not None:
            pairs.append(Pair(group, before))
        if before is None or group.traces >= MIN_TRACES or before.traces < MIN_TRACES:
            before = group
    return None, pairs
