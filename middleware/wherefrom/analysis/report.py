"""A comparison with all that belongs to it: the verdicts in words, what came when, and what was deployed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..stores import Store
from .comparison import compare
from .deployments import Deployment, deployments
from .filters import find_condition, narrow
from .results import Comparison
from .timeline import Timeline, timeline
from .verdicts import Said, headline, summary

STEPS = 48
"""How many steps of time are shown, or fewer."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of the values of ``by`` from ``since`` to before ``until``, in ms since the epoch.

    ``verdicts`` are told in sentences, what is worse first. ``deployments`` are those whose first trace
    came in within that time. ``conditions`` are, by value, the filters for its traces; ``filter`` is what
    was asked of all of them.
    """

    by: str
    filter: str | None
    since: int
    until: int
    headline: str
    verdicts: tuple[Said, ...]
    comparison: Comparison
    timeline: Timeline
    deployments: tuple[Deployment, ...]
    conditions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """What to report on; ``since`` and ``until`` as ``find_window`` takes them."""

    by: str
    baseline: str | None = None
    filter_string: str | None = None
    since: str | None = None
    until: str | None = None


def report(question: Question, *, experiment: str | None = None, store: Store | str | None = None) -> Report:
    """Compare what came in within a time range.

    Raises:
        FilterError: as in ``compare``, or a moment cannot be used.
    """
    narrowed = narrow(question.filter_string, question.since, question.until, store=store)
    where, window = narrowed.filter_string, narrowed.window
    found = compare(question.by, where, baseline=question.baseline, experiment=experiment, store=store)
    found = replace(found, filter_string=question.filter_string)
    deployed = deployments(str(window.since), str(window.until), experiment=experiment, store=store).found
    condition = find_condition(question.by, store=store)
    return Report(
        by=question.by,
        filter=question.filter_string,
        since=window.since,
        until=window.until,
        headline=headline(found),
        verdicts=tuple(summary(found)),
        comparison=found,
        timeline=timeline(question.by, where, buckets=STEPS, experiment=experiment, store=store),
        deployments=tuple(one for one in deployed if window.since <= one.first_seen < window.until),
        conditions={} if condition is None else {row.value: condition(row.value) for row in found.rows},
    )
