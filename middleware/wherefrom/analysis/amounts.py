"""Tokens, cost and feedback: their means by value, and how they differ.

Means differ by the same blocks and within the same strata as errors do. Of tokens and cost the ratio is
tested, of feedback the difference.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from .. import keys
from ..query.fields import Field
from ..stores import Selection, Snapshot
from ..stores.base import COST, OF_FEEDBACK, TOKENS
from .blocks import MIN_TRACES, Blocks, Count, Traffic, find_moments, measure_amounts, step_of
from .clusters import Setting, contrast, estimate, ratio
from .evidence import MIN_CHANGE
from .results import Amount, AmountDifference, Group
from .statistics import holm_correction
from .verdicts import Pair, amount_text, relative, share_interval

MOST_FEEDBACK: Final = 5
"""How many names of feedback are compared, in alphabetical order."""
_PLACES: Final = ((TOKENS, keys.TOKEN_USAGE), (COST, keys.COST))

Amounts = Mapping[str, Mapping[str, Sequence[Count]]]
"""The counts by block of each value, for each measure."""


def read_amounts(
    snapshot: Snapshot,
    selection: Selection,
    by: Field,
    stratum: Field | None,
    groups: Sequence[Group],
    pairs: Sequence[Pair],
) -> Amounts:
    """The amounts of some values, in the steps of the pairs. Where no trace has any, nothing is counted."""
    measures = [measure for measure, key in _PLACES if snapshot.has_key("metadata", key)]
    measures += [OF_FEEDBACK + name for name in snapshot.keys("feedback")[:MOST_FEEDBACK]]
    measures = [measure for measure in measures if measure != by.label]
    found: dict[str, dict[str, list[Count]]] = {measure: {} for measure in measures}
    if not measures or not groups:
        return {}
    compared = [group for pair in pairs for group in pair] or groups
    step, moments = step_of(compared), find_moments(compared)
    shown = {group.value for group in groups}
    for one in snapshot.amounts(selection, by, stratum, step, measures):
        if one.value in shown:
            time = moments.get(one.value, one.time)
            count = Count(one.stratum, one.process, time, None, one.traces, 0, one.total, one.squares)
            found[one.measure].setdefault(one.value, []).append(count)
    return {measure: found[measure] if _is_rated(measure) else _used(found[measure]) for measure in measures}


def _is_rated(measure: str) -> bool:
    return measure.startswith(OF_FEEDBACK)


def _used(counts: Mapping[str, Sequence[Count]]) -> dict[str, list[Count]]:
    """The counts of the strata in which some trace has an amount: not those of a health check."""
    used = {count.stratum for of_value in counts.values() for count in of_value if count.total}
    kept = {value: [one for one in of_value if one.stratum in used] for value, of_value in counts.items()}
    return {value: of_value for value, of_value in kept.items() if of_value}


def judge_amounts(
    amounts: Amounts, pairs: Sequence[Pair], confidence: float, *, anytime: bool
) -> dict[str, tuple[Amount, ...]]:
    """The amounts of each value, those of a pair with their difference.

    Raises:
        QueryTimeoutError: the deadline has passed.
    """
    others = {pair.group.value: pair.other.value for pair in pairs}
    found: defaultdict[str, list[Amount]] = defaultdict(list)
    for measure, counts in amounts.items():
        is_share = _is_rated(measure) and all(
            count.total == count.squares for of_value in counts.values() for count in of_value
        )
        traffic = {value: Traffic.of(of_value) for value, of_value in counts.items()}
        for value, own in traffic.items():
            traces, total = own.total, float(own.totals.sum())
            other = traffic.get(others[value]) if value in others else None
            difference = None
            if traces and other:
                difference = _compare(own, other, measure, is_share, confidence, anytime)
            if traces:
                found[value].append(Amount(measure, traces, total / traces, is_share, difference))
    tested = [one.difference.p_value for own in found.values() for one in own if one.difference]
    adjusted = iter(holm_correction(tested))
    return {
        value: tuple(
            replace(one, difference=replace(one.difference, p_adjusted=next(adjusted)))
            if one.difference
            else one
            for one in own
        )
        for value, own in found.items()
    }


def spell_seen(amounts: Sequence[Amount], alpha: float) -> list[str]:
    """The differences that are seen and matter, as parts of a sentence."""
    return [
        amount_text(one, one.difference)
        for one in amounts
        if one.difference and one.difference.direction and one.difference.p_adjusted < alpha
    ]


def _compare(
    own: Traffic,
    other: Traffic,
    measure: str,
    is_share: bool,
    confidence: float,
    anytime: bool,
) -> AmountDifference | None:
    """The difference of two values; ``None`` where too few traces have the amount, or one value has none."""
    blocks = Blocks(own, other)
    table = blocks.table([measure_amounts])
    found = contrast(table, is_share=is_share) if _is_rated(measure) else ratio(table)
    if found is None or found.traces < MIN_TRACES:
        return None
    ((effect,),) = estimate(found, Setting(blocks.same_processes, blocks.same_time))
    (first,), (second,) = found.means[0].tolist()
    sides, p_value = (first, second), effect.p_value(anytime=anytime)
    interval, change, matters = effect.interval(confidence, anytime=anytime), effect.effect, True
    if is_share:
        traces = blocks.traces(0), blocks.traces(1)
        interval = share_interval(effect, sides, traces, confidence, anytime=anytime)
    elif not _is_rated(measure):
        matters = abs(change) >= math.log1p(MIN_CHANGE)
        change, interval = math.expm1(change), relative(interval)
    return AmountDifference(*sides, change, interval, matters, p_value, p_value)
