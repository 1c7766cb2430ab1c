"""A rule applied to a snapshot: whether it fires, and what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from .._units import counted, duration
from ..analysis.comparison import compare_candidate
from ..analysis.results import Verdict
from ..analysis.scope import Window, find_grouping
from ..analysis.statistics import Sample, quantile
from ..analysis.verdicts import sentence
from ..query.tree import And, Node, flatten, format_filter
from ..stores import Selection, Snapshot
from .rules import Limit, Pairing, Rule

_LONGEST_LINK = 1_500  # Slack takes 3,000 characters, with what an & is written as


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule saw in the traces from ``since`` to before ``until``, in ms since the epoch.

    ``subject`` is the value that is worse, empty for a limit: each has incidents of its own. ``text`` is a
    sentence; ``link`` the path of a page with the same traces, of which the time range is fixed.
    """

    fires: bool
    subject: str
    text: str
    link: str
    since: int
    until: int


def evaluate(snapshot: Snapshot, rule: Rule, now_ms: int) -> Finding:
    """Apply a rule to the traces of its last ``over_ms``.

    Raises:
        FilterError: nothing is named as the key that the rule compares by.
        StoreError: the store cannot be read.
    """
    window = Window(now_ms - rule.over_ms, now_ms)
    experiments = None if rule.experiment is None else (rule.experiment,)
    if isinstance(rule.check, Pairing):
        return _judge(snapshot, rule, rule.check, window, experiments)
    return _measure(snapshot, rule, rule.check, window, experiments)


def _measure(
    snapshot: Snapshot, rule: Rule, limit: Limit, window: Window, experiments: tuple[str, ...] | None
) -> Finding:
    tree = _both(rule.where, limit.tree)
    traces = window.limit(Selection(tree, experiments))
    last = f"in the last {duration(rule.over_ms * 1e6)}"
    order = {}
    match limit.kind:
        case "count":
            found = snapshot.count(traces)
            fires, text = found > limit.most, f"{counted(found, 'trace')}{_matching(limit)} {last}"
        case "share":
            found, whole = (
                snapshot.count(traces),
                snapshot.count(window.limit(Selection(rule.where, experiments))),
            )
            share = found / whole if whole else 0.0
            fires = whole >= limit.min_traces and share > limit.most
            text = f"{100 * share:.3g} % of {counted(whole, 'trace')} {last} match {_spelled(limit.tree)}"
        case "quantile":
            groups = snapshot.groups(traces, find_grouping("experiment", snapshot))
            sample = Sample({})
            for group in groups:
                sample = sample + Sample(group.succeeded) + Sample(group.failed)
            ms = quantile(sample, limit.quantile) / 1000 if len(sample) else 0.0
            fires = len(sample) >= limit.min_traces and ms > limit.most
            named = f"p{100 * limit.quantile:.0f}"
            text = f"{named} {ms:,.3g} ms of {counted(len(sample), 'trace')}{_matching(limit)} {last}"
            order = {"order": "slowest"}
    return Finding(fires, "", text, _link("/traces", rule, window, tree, order), window.since, window.until)


def _judge(
    snapshot: Snapshot, rule: Rule, pairing: Pairing, window: Window, experiments: tuple[str, ...] | None
) -> Finding:
    found = compare_candidate(
        snapshot,
        window.limit(Selection(rule.where, experiments)),
        pairing.candidate,
        pairing.by,
        baseline=pairing.baseline,
        stratify=pairing.stratify,
        sequential=True,
    )
    row = next((row for row in found.rows if row.verdict is not None), None)
    if row is None:
        return Finding(False, "", "There is nothing to compare.", "", window.since, window.until)
    parameters = {"by": pairing.by, "baseline": row.against or ""}
    return Finding(
        row.verdict is Verdict.WORSE,
        row.value,
        sentence(row),
        _link("/compare", rule, window, rule.where, parameters),
        window.since,
        window.until,
    )


def _link(path: str, rule: Rule, window: Window, tree: Node | None, parameters: Mapping[str, str]) -> str:
    """The path of a page over the window; without the filter if that is very long."""
    text = "" if tree is None else format_filter(tree)
    given = {
        "experiment": rule.experiment or "",
        "filter": text if len(text) <= _LONGEST_LINK else "",
        "since": str(window.since),
        "until": str(window.until),
        **parameters,
    }
    return f"{path}?{urlencode({name: value for name, value in given.items() if value})}"


def _both(*trees: Node | None) -> Node | None:
    parts = flatten(tree for tree in trees if tree is not None)
    return And(tuple(parts)) if len(parts) > 1 else next(iter(parts), None)


def _matching(limit: Limit) -> str:
    return "" if limit.tree is None else f" that match {_spelled(limit.tree)}"


def _spelled(tree: Node | None) -> str:
    return "" if tree is None else format_filter(tree)
