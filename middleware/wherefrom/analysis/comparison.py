"""Comparisons of traces by value, flag or release: figures for each value, and the verdict on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from heapq import nlargest
from typing import Any, Final

from .. import keys
from .._buckets import RATIO
from ..exceptions import FilterError
from ..query.errors import did_you_mean
from ..query.fields import Field, Operator
from ..query.tree import Compare, format_filter
from ..stores import Selection, Snapshot
from ..stores.base import HOUR_MS, ValueCounts
from .amounts import judge_amounts, read_amounts, spell_seen
from .blocks import MIN_TRACES, Traffic, find_moments, read_traffic, step_of
from .deployments import Deployment, read_deployments
from .results import Amount, Comparison, Group, Regression, Row, Verdict, Versions
from .scope import Window, find_grouping, limit_to
from .statistics import (
    Interval,
    Sample,
    count_steps,
    make_edges,
    proportion_confint,
    quantile,
    quantile_interval,
)
from .timeline import MAX_VALUES, Timeline, read_timeline
from .verdicts import Judgement, Pair, VerdictSentence, headline, judge, summary

STEPS: Final = 48
"""The most steps of time in a report."""
_OFF: Final = "false"
STRATIFY: Final = "name"
"""What is compared only with itself: the routes."""

Choice = tuple[str | None, list[Pair]]
"""The baseline, if there is one, and the pairs to compare."""


# Four ways to choose pairs


def compare_values(
    snapshot: Snapshot,
    selection: Selection,
    by: str = keys.APP_VERSION,
    *,
    baseline: str | None = None,
    confidence: float = 0.95,
    stratify: str | None = STRATIFY,
    sequential: bool = False,
) -> Comparison:
    """Compare every value of ``by`` with the baseline: by default the first ever seen with enough traces.

    ``sequential``: the comparison is made again and again while traces arrive, so its tests are sequential.

    Raises:
        FilterError: nothing is named ``by``, or no trace has the baseline.
    """

    def choose(groups: Sequence[Group]) -> Choice:
        return _against(groups, _first(groups) if baseline is None else _find(groups, baseline, by))

    return _compare(snapshot, selection, by, choose, confidence, stratify, sequential, (baseline,))


def compare_candidate(
    snapshot: Snapshot,
    selection: Selection,
    candidate: str | None = None,
    by: str = keys.APP_VERSION,
    *,
    baseline: str | None = None,
    confidence: float = 0.95,
    stratify: str | None = STRATIFY,
    sequential: bool = False,
) -> Comparison:
    """Compare one value, by default the newest, with one other: the last before it with enough traces.

    Only the row of the candidate has a verdict, and it has none while one of the two has no traces.

    Raises:
        FilterError: nothing is named ``by``, no trace has the baseline, or it is the candidate.
    """
    if candidate is not None and candidate == baseline:
        raise FilterError(f"{candidate!r} cannot be compared with itself")

    def choose(groups: Sequence[Group]) -> Choice:
        names = [group.value for group in groups]
        newest = candidate if candidate is not None or not names else names[-1]
        place = names.index(newest) if newest in names else len(names)
        if baseline is not None:
            other: Group | None = _find(groups, baseline, by)
        else:
            before = groups[:place]
            enough = (group for group in reversed(before) if group.traces >= MIN_TRACES)
            other = next(enough, before[-1] if before else None)
        if other is None:
            return None, []
        is_pair = place < len(groups) and groups[place] is not other
        return other.value, [Pair(groups[place], other)] if is_pair else []

    return _compare(snapshot, selection, by, choose, confidence, stratify, sequential, (candidate, baseline))


def compare_flag(
    snapshot: Snapshot,
    selection: Selection,
    name: str,
    *,
    confidence: float = 0.95,
    stratify: str | None = STRATIFY,
    sequential: bool = False,
) -> Comparison:
    """Compare every value of a feature flag with ``"false"``, or with the first where that is missing.

    Raises:
        FilterError: no trace carries the flag.
    """

    def choose(groups: Sequence[Group]) -> Choice:
        off = next((group for group in groups if group.value == _OFF), None)
        return _against(groups, off or _first(groups))

    by = keys.FEATURE_FLAG_PREFIX + name.removeprefix(keys.FEATURE_FLAG_PREFIX)
    return _compare(snapshot, selection, by, choose, confidence, stratify, sequential)


def compare_versions(
    snapshot: Snapshot,
    selection: Selection,
    by: str = keys.APP_VERSION,
    *,
    confidence: float = 0.95,
    stratify: str | None = STRATIFY,
    sequential: bool = False,
) -> Versions:
    """Compare each release with the latest one before it that has enough traces.

    Raises:
        FilterError: nothing is named ``by``.
    """
    compared = _compare(snapshot, selection, by, _in_turn, confidence, stratify, sequential)
    known = {field.name: getattr(compared, field.name) for field in fields(Comparison)}
    return Versions(**known, regressions=tuple(find_regressions(compared.rows)))


def find_regressions(rows: Iterable[Row]) -> list[Regression]:
    """A regression starts with each release that is worse, and ends with the next one that is better.

    Two regressions in a row both end with that release.
    """
    found: list[Regression] = []
    for row in rows:
        if row.verdict is Verdict.WORSE and row.against is not None:
            found.append(Regression(row.value, row.against, row.reason))
        elif row.verdict is Verdict.BETTER:
            found = [one if one.ended else replace(one, ended=row.value) for one in found]
    return found


def _against(groups: Sequence[Group], baseline: Group | None) -> Choice:
    if baseline is None:
        return None, []
    return baseline.value, [Pair(group, baseline) for group in groups if group is not baseline]


def _first(groups: Sequence[Group]) -> Group | None:
    enough = (group for group in groups if group.traces >= MIN_TRACES)
    return next(enough, groups[0] if groups else None)


def _find(groups: Sequence[Group], value: str, by: str) -> Group:
    known = {group.value: group for group in groups}
    if value not in known:
        raise FilterError(f"no trace to compare with has {by} {value!r}{did_you_mean(value, list(known))}")
    return known[value]


def _in_turn(groups: Sequence[Group]) -> Choice:
    pairs: list[Pair] = []
    before: Group | None = None
    for group in groups:
        if before is not None:
            pairs.append(Pair(group, before))
        if before is None or group.traces >= MIN_TRACES or before.traces < MIN_TRACES:
            before = group
    return None, pairs


# From groups to rows


def _compare(
    snapshot: Snapshot,
    selection: Selection,
    by: str,
    choose: Callable[[Sequence[Group]], Choice],
    confidence: float,
    stratify: str | None,
    sequential: bool,
    wanted: Sequence[str | None] = (),
) -> Comparison:
    """Compare the values of ``by`` in the pairs that ``choose`` makes.

    Of many values, those ``wanted`` are among the rows.
    """
    if not 0 < confidence < 1:
        raise FilterError(f"confidence is between 0 and 1, as 0.95 is, not {confidence!r}")
    field = find_grouping(by, snapshot)
    with_tokens = snapshot.has_key("metadata", keys.TOKEN_USAGE)
    counted = snapshot.groups(selection, field, with_tokens=with_tokens, before_blocks=True)
    groups = sorted((make_group(one.value, one) for one in counted if one.value is not None), key=_first_seen)
    most = nlargest(MAX_VALUES, groups, key=lambda group: (group.value in wanted, group.traces))
    shown = _in_order_of_release(snapshot, selection, field, sorted(most, key=_first_seen))
    baseline, pairs = choose(shown)
    stratum = None if stratify is None else find_grouping(stratify, snapshot)
    blocks = read_blocks(snapshot, selection, field, None if stratum == field else stratum, pairs)
    judged = {
        pair.group.value: (pair.other.value, judgement)
        for pair, judgement in zip(pairs, judge(pairs, confidence, blocks, anytime=sequential), strict=True)
    }
    edges = make_edges(group.durations for group in shown)
    compared = [pair for pair in pairs if pair.is_enough]
    amounts = judge_amounts(
        read_amounts(snapshot, selection, field, None if stratum == field else stratum, shown, compared),
        compared,
        confidence,
        anytime=sequential,
    )
    rows = (
        _row(group, field, confidence, edges, amounts.get(group.value, ()), judged.get(group.value))
        for group in shown
    )
    return Comparison(
        by=by,
        rows=tuple(rows),
        baseline=baseline,
        left_out=sum(one.traces for one in counted if one.value is None),
        other_values=len(groups) - len(shown),
        tests=sum(len(list(judgement.tests)) for _, judgement in judged.values()),
        confidence=confidence,
        sequential=sequential,
        filter_string=None if selection.tree is None else format_filter(selection.tree),
        experiment=selection.experiments[0] if selection.experiments else None,
        edges=tuple(RATIO**edge / 1000 for edge in edges),
    )


def read_blocks(
    snapshot: Snapshot, selection: Selection, by: Field, stratum: Field | None, pairs: Sequence[Pair]
) -> dict[str, Traffic]:
    """The counts by block of the values that are compared, in steps that divide the shortest of them."""
    compared = {group.value: group for pair in pairs if pair.is_enough for group in pair}
    if not compared:
        return {}
    batches = snapshot.block_columns(selection, by, stratum, step_of(compared.values()))
    return read_traffic(batches, compared, find_moments(compared.values()))


def _first_seen(group: Group) -> tuple[int, str]:
    return group.first_seen, group.value


def _in_order_of_release(
    snapshot: Snapshot, selection: Selection, field: Field, groups: list[Group]
) -> list[Group]:
    """The groups by the first trace that the store has of each value, within the selection or before it.

    Within a time range the later release may come first: there the earlier one is still the one to compare
    with.
    """
    if selection.tree is None or len(groups) < 2 or Operator.EQ not in field.operators:
        return groups
    first = snapshot.first_seen(field, [group.value for group in groups], selection.experiments)
    return sorted(groups, key=lambda group: (first.get(group.value, group.first_seen), group.value))


def make_group(value: str, counts: ValueCounts) -> Group:
    """The traces with one value."""
    return Group(
        value,
        counts.traces,
        counts.errors,
        counts.first_seen,
        counts.last_seen,
        Sample(counts.succeeded),
        Sample(counts.failed),
        counts.tokens,
    )


def _row(
    group: Group,
    field: Field,
    confidence: float,
    edges: Sequence[int],
    amounts: tuple[Amount, ...],
    judged: tuple[str, Judgement] | None,
) -> Row:
    hours = (group.last_seen - group.first_seen) / HOUR_MS
    figures: dict[str, Any] = {}
    for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
        figures[name] = quantile(group.durations, share) / 1000 if group.durations else None
        figures[f"{name}_interval"] = _in_ms(quantile_interval(group.durations, share, confidence))
    if judged is not None:
        other, judgement = judged
        figures |= {
            "against": other,
            "error_difference": judgement.tests.errors,
            "latency_difference": judgement.tests.latency,
            "tail_difference": judgement.tests.tail,
            "strata": judgement.tests.strata,
            "verdict": judgement.verdict,
            "reason": "; ".join([judgement.reason, *spell_seen(amounts, 1 - confidence)]),
        }
    can_filter = Operator.EQ in field.operators
    return Row(
        value=group.value,
        traces=group.traces,
        errors=group.errors,
        error_rate=group.errors / group.traces,
        error_rate_interval=proportion_confint(group.errors, group.traces, confidence),
        traces_per_hour=group.traces / hours if hours else None,
        first_seen=group.first_seen,
        last_seen=group.last_seen,
        tokens=group.tokens,
        amounts=amounts,
        filter=format_filter(Compare(field, Operator.EQ, group.value)) if can_filter else None,
        histogram=count_steps(group.durations, edges),
        **figures,
    )


def _in_ms(interval: Interval) -> Interval:
    low, high = interval.low, interval.high
    return Interval(None if low is None else low / 1000, None if high is None else high / 1000)


# A comparison with its context


@dataclass(frozen=True, slots=True)
class Report:
    """A comparison of the traces from ``since`` to before ``until``, in ms since the epoch.

    ``verdicts`` are sentences, the worse ones first. ``deployments`` are those whose first trace is in that
    time range. ``filter`` is the filter on all traces.
    """

    by: str
    filter: str | None
    since: int
    until: int
    headline: str
    verdicts: tuple[VerdictSentence, ...]
    comparison: Comparison
    timeline: Timeline
    deployments: tuple[Deployment, ...]


def make_report(
    snapshot: Snapshot,
    selection: Selection,
    window: Window,
    by: str,
    baseline: str | None = None,
    *,
    stratify: str | None = STRATIFY,
    sequential: bool = False,
) -> Report:
    """Compare the traces of a selection within a window, as ``compare_values`` does.

    Raises:
        FilterError: nothing is named ``by``, or no trace has the baseline.
    """
    within = limit_to(snapshot, selection, window)
    text = None if selection.tree is None else format_filter(selection.tree)
    found = compare_values(snapshot, within, by, baseline=baseline, stratify=stratify, sequential=sequential)
    found = replace(found, filter_string=text)
    deployments = read_deployments(snapshot, replace(selection, tree=None), window).found
    return Report(
        by=by,
        filter=text,
        since=window.since,
        until=window.until,
        headline=headline(found),
        verdicts=tuple(summary(found)),
        comparison=found,
        timeline=read_timeline(snapshot, within, by, STEPS),
        deployments=tuple(one for one in deployments if window.since <= one.first_seen < window.until),
    )
