"""Releases in order, each against the one before it, and where what got worse began."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

from .. import keys
from ..stores import Store
from .groups import Group
from .pairs import MIN_TRACES, Pair
from .results import Comparison, Regression, Row, Verdict, Versions
from .rows import Choice, compare_pairs


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
