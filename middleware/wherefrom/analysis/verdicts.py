"""The verdict on one value compared with another: the tests, the decision, and its sentences.

``evidence`` has the tests: processes and stretches of time are compared, not traces, and each stratum (by
default each route) with itself. All p-values of a comparison are corrected together by Holm's method.

- ``too few traces``: one of the two has fewer than 30 that can be compared; nothing is tested. Traces that
  have been pruned can be if the store has kept blocks that answer the question.
- ``worse``: the error rate is higher, or traces take longer, or more of them are slow, of all or of a route.
- ``better``: the opposite of one of these, and none of them.
- ``no difference seen``: none of either.

A difference is seen when its corrected p-value is below 1 - confidence. A difference in latency must also
matter, because among a million traces any difference is significant: durations have to differ by 5 % or
more. Where there are fewer errors and traces are slower, only the traces that succeeded decide, because
failing fast is no merit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Final, NamedTuple

from .._units import dollars
from ..stores.base import COST, TOKENS
from .blocks import MIN_TRACES, Count, Traffic
from .clusters import Estimate
from .distributions import one_look_level
from .evidence import Effect, Evidence, Ratio, gather, gather_all
from .results import (
    Amount,
    AmountDifference,
    Comparison,
    ErrorDifference,
    Group,
    LatencyDifference,
    Row,
    StratumDifference,
    TailDifference,
    Verdict,
)
from .statistics import Interval, confint_proportions_2indep, superiority
from .wording import against, in_digits, in_ms, named, percent

# Tests

Difference = ErrorDifference | LatencyDifference | TailDifference | StratumDifference
Counts = Mapping[str, Traffic]
"""The counts by block of each value."""


class Pair(NamedTuple):
    """A group and the group it is compared with."""

    group: Group
    other: Group

    @property
    def is_enough(self) -> bool:
        """Whether both have enough traces for a test."""
        return min(self.group.traces, self.other.traces) >= MIN_TRACES


@dataclass(frozen=True, slots=True)
class Tests:
    """The differences found for a pair, ``None`` for those that too few traces show, and the evidence.

    ``strata`` are those that stand out at the level of the comparison.
    """

    errors: ErrorDifference | None = None
    latency: LatencyDifference | None = None
    tail: TailDifference | None = None
    strata: tuple[StratumDifference, ...] = ()
    evidence: Evidence | None = None

    def __iter__(self) -> Iterator[Difference]:
        overall = (test for test in (self.errors, self.latency, self.tail) if test is not None)
        return iter([*overall, *self.strata])


def run_tests(
    pairs: Sequence[Pair], counts: Counts | None, confidence: float, *, anytime: bool = False
) -> list[Tests]:
    """The tests of each pair, corrected for the number of tests of all pairs.

    Raises:
        QueryTimeoutError: the deadline has passed.
    """
    every = [_sides(pair, counts) for pair in pairs]
    enough = [
        pair.is_enough and all(side.total >= MIN_TRACES for side in sides)
        for pair, sides in zip(pairs, every, strict=True)
    ]
    found = iter(gather_all(compress(every, enough), confidence=confidence, anytime=anytime))
    return [
        _tests(pair, next(found), confidence, anytime=anytime) if is_enough else Tests()
        for pair, is_enough in zip(pairs, enough, strict=True)
    ]


def _sides(pair: Pair, counts: Counts | None) -> tuple[Traffic, Traffic]:
    """The counts of both by block; in one block if none are given."""
    if counts is None:
        return Traffic.of(_one_block(pair.group)), Traffic.of(_one_block(pair.other))
    none = Traffic.of(())
    return counts.get(pair.group.value, none), counts.get(pair.other.value, none)


def _one_block(group: Group) -> list[Count]:
    succeeded = [Count("", "", 0, bucket, number, 0) for bucket, number in group.succeeded.items()]
    failed = [Count("", "", 0, bucket, number, number) for bucket, number in group.failed.items()]
    others = group.traces - len(group.durations)
    errors = min(group.errors - len(group.failed), others)
    others -= errors
    untimed = [Count("", "", 0, None, errors, errors), Count("", "", 0, None, others, 0)]
    return [*succeeded, *failed, *(count for count in untimed if count.traces > 0)]


def _tests(pair: Pair, evidence: Evidence, confidence: float, *, anytime: bool) -> Tests:
    errors, slow = evidence.find("errors"), evidence.find("slow")

    def interval(effect: Effect) -> Interval:
        if effect.kind == "errors" and effect.stratum is None:
            return share_interval(effect.estimate, effect.rates, evidence.traces, confidence, anytime=anytime)
        found = effect.estimate.interval(confidence, anytime=anytime)
        return found if effect.kind == "durations" else _of_shares(found)

    return Tests(
        None
        if errors is None
        else ErrorDifference(errors.estimate.effect, interval(errors), errors.p_value, errors.p_adjusted),
        _latency(pair, evidence, interval),
        None
        if slow is None
        else TailDifference(
            (slow.limit or 0) / 1000, *slow.rates, interval(slow), slow.matters, slow.p_value, slow.p_adjusted
        ),
        tuple(
            StratumDifference(
                effect.stratum,
                effect.kind,
                math.expm1(effect.estimate.effect) if effect.kind == "durations" else effect.estimate.effect,
                relative(interval(effect)) if effect.kind == "durations" else interval(effect),
                effect.p_adjusted,
            )
            for effect in evidence.effects
            if effect.stratum is not None and effect.direction and effect.p_adjusted < 1 - confidence
        ),
        evidence,
    )


def share_interval(
    found: Estimate,
    rates: tuple[float, float],
    traces: tuple[int, int],
    confidence: float,
    *,
    anytime: bool,
) -> Interval:
    """The interval of a difference of shares."""
    if found.variance:
        return _of_shares(found.interval(confidence, anytime=anytime))
    # No trace failed, or all did: the blocks tell nothing, but how many there are does.
    counts = [(round(rate * n), n) for rate, n in zip(rates, traces, strict=True)]
    level = 1 - confidence
    if anytime:
        level = one_look_level(level, min(traces))
    return confint_proportions_2indep(*counts[0], *counts[1], 1 - level)


def _of_shares(interval: Interval) -> Interval:
    """An interval of a difference of shares, which is between -1 and 1."""
    ends = (None if end is None else min(1.0, max(-1.0, end)) for end in (interval.low, interval.high))
    return Interval(*ends)


def _latency(
    pair: Pair, evidence: Evidence, interval: Callable[[Effect], Interval]
) -> LatencyDifference | None:
    found, p50, p95 = evidence.find("durations"), evidence.p50, evidence.p95
    if found is None or p50 is None or p95 is None:
        return None
    return LatencyDifference(
        (p50.durations[0] - p50.durations[1]) / 1000,
        (p95.durations[0] - p95.durations[1]) / 1000,
        p50.change,
        p95.change,
        _less_1(p95.interval),
        math.expm1(found.estimate.effect),
        relative(interval(found)),
        superiority(pair.group.durations, pair.other.durations),
        found.matters,
        found.p_value,
        found.p_adjusted,
    )


def relative(logs: Interval) -> Interval:
    """An interval of a difference of logarithms as one of a relative change."""
    ends = (
        None if end is None or abs(end) > _LARGEST_LOG else math.expm1(end) for end in (logs.low, logs.high)
    )
    return Interval(*ends)


def _less_1(ratio: Interval) -> Interval:
    return Interval(*(None if end is None else end - 1 for end in (ratio.low, ratio.high)))


_LARGEST_LOG: Final = 20.0  # a factor of 500 million: nothing is known


# Decision

_VERDICTS: Final = {1: Verdict.WORSE, -1: Verdict.BETTER, 0: Verdict.NO_DIFFERENCE}


class Judgement(NamedTuple):
    """A verdict, the reason for it, and the tests behind it."""

    verdict: Verdict
    reason: str
    tests: Tests


def judge(
    pairs: Sequence[Pair],
    confidence: float,
    counts: Counts | None = None,
    *,
    anytime: bool = False,
) -> list[Judgement]:
    """The judgements on all pairs of one comparison.

    Without ``counts`` by block, traces are taken to be independent. ``anytime``: they are made again and
    again while traces arrive.
    """
    found = run_tests(pairs, counts, confidence, anytime=anytime)
    return [
        _decide(pair, tests, 1 - confidence, counts, anytime=anytime)
        for pair, tests in zip(pairs, found, strict=True)
    ]


def _decide(pair: Pair, tests: Tests, alpha: float, counts: Counts | None, *, anytime: bool) -> Judgement:
    if tests.errors is None:
        return Judgement(Verdict.TOO_FEW, too_few(pair, tests.evidence), tests)
    seen = [test for test in tests if _direction(test, alpha)]
    towards, remark = _balance(seen), ""
    if towards > 0 and _is_by_fewer_errors(pair, tests, alpha, counts, anytime=anytime):
        towards, remark = -1, "; those that succeeded are not slower"
    because = reason(pair, tests, seen, towards)
    return Judgement(_VERDICTS[towards], because + remark, tests)


def _direction(test: Difference, alpha: float) -> int:
    """1 for worse, -1 for better, 0 where no difference is seen."""
    return test.direction if test.p_adjusted < alpha else 0


def _balance(seen: Iterable[Difference]) -> int:
    """1 if anything is worse, else -1 if anything is better: an improvement does not offset a regression."""
    directions = {test.direction for test in seen}
    return 1 if 1 in directions else min(directions, default=0)


def _is_by_fewer_errors(
    pair: Pair, tests: Tests, alpha: float, counts: Counts | None, *, anytime: bool
) -> bool:
    """Whether traces are slower only because fewer of them fail fast."""
    if tests.errors is None or _direction(tests.errors, alpha) >= 0:
        return False
    if any(test.measure == "errors" and test.direction > 0 for test in tests.strata):
        return False
    first, second = (side.succeeded() for side in _sides(pair, counts))
    succeeded = gather(first, second, confidence=1 - alpha, anytime=anytime).effects
    if not any(effect.kind == "durations" and effect.stratum is None for effect in succeeded):
        return False
    return all(effect.direction <= 0 for effect in succeeded if effect.p_adjusted < alpha)


# Reasons

_DIRECTIONS: Final = {1: "slower: ", -1: "faster: ", 0: ""}
_FEWER_OR_MORE: Final = {1: "more", -1: "fewer"}
_SMALLEST_P: Final = 0.0001  # smaller p-values depend on assumptions too much to be quoted
_CONFIDENCE: Final = "95 % CI"


def too_few(pair: Pair, evidence: Evidence | None = None) -> str:
    """Why nothing was tested."""
    if evidence is not None:
        return "they have too few traces of the same kind to compare like with like"
    if pair.is_enough:
        return "the traces whose process and route are known were pruned"
    return f"{pair.group.traces:,} and {pair.other.traces:,} traces, but {MIN_TRACES} of each are needed"


def reason(pair: Pair, tests: Tests, seen: Sequence[Difference], towards: int) -> str:
    """The differences seen, those in the verdict's direction first; where none was seen, all tests.

    A direction is 1 for worse, -1 for better.
    """
    if not seen:
        texts = [_text(test, tests, 0) for test in tests if not isinstance(test, TailDifference)]
    else:
        shown = [test for test in seen if not _is_implied(test, seen)]
        shown.sort(key=lambda test: test.direction != towards)
        texts = [
            ("" if test.direction == towards else "but ") + _text(test, tests, test.direction)
            for test in shown
        ]
    remarks = [] if tests.evidence is None else _remarks(tests.evidence, is_seen=bool(seen))
    traces = f"{pair.group.traces:,} and {pair.other.traces:,} traces"
    if tests.evidence is not None and tests.evidence.same_time:
        first, second = tests.evidence.traces
        traces = f"{first:,} and {second:,} traces while both had traffic"
    elif tests.evidence is not None and tests.evidence.traces != (pair.group.traces, pair.other.traces):
        first, second = tests.evidence.traces
        traces = f"{first:,} and {second:,} traces that were not pruned"
    return "; ".join([f"{'; '.join(texts)}, {traces}", *remarks])


def _remarks(evidence: Evidence, *, is_seen: bool) -> list[str]:
    remarks = []
    if evidence.mix:
        change = evidence.mix[0]
        shares = against(change.share, change.other_share, percent)
        remarks.append(
            f"the mix changed ({named(change.stratum)} is {shares} of the traces) and is allowed for"
        )
    if not is_seen and (needed := evidence.needed) is not None:
        more = (
            f"{needed.processes:,} processes of each"
            if needed.processes is not None
            else f"about {needed.times:,.1f} times as many traces"
        )
        remarks.append(f"{more} would show durations that differ by 10 %")
    return remarks


def _is_implied(test: Difference, seen: Sequence[Difference]) -> bool:
    """Whether the p95 of the latency difference already shows it."""
    if not isinstance(test, TailDifference):
        return False
    return any(isinstance(other, LatencyDifference) and other.direction == test.direction for other in seen)


def _text(test: Difference, tests: Tests, direction: int) -> str:
    p_value = _p(test.p_adjusted)
    if isinstance(test, ErrorDifference):
        rates = tests.evidence.find("errors") if tests.evidence else None
        shown = against(*rates.rates, percent) if rates else ""
        return f"error rate {shown} ({_points(test.difference, test.interval)}), {p_value}"
    if isinstance(test, StratumDifference):
        if test.measure == "errors":
            return f"{named(test.stratum)}: errors {_points(test.change, test.interval)}, {p_value}"
        return (
            f"{named(test.stratum)} {_DIRECTIONS[direction]}{_change(test.change, test.interval)}, {p_value}"
        )
    if isinstance(test, TailDifference):
        shares = against(test.share, test.other_share, percent)
        return (
            f"{_FEWER_OR_MORE[direction]} slow traces: {shares} take over {in_ms(test.limit, 1)}, {p_value}"
        )
    ratios = (None, None) if tests.evidence is None else (tests.evidence.p50, tests.evidence.p95)
    p50, p95 = ("" if ratio is None else _both(ratio) for ratio in ratios)
    figures = f"{_DIRECTIONS[direction]}p50 {p50}, p95 {p95}"
    near = ", less than 5 % apart" if not test.matters else f" ({_change(test.change, test.interval)})"
    return f"{figures}{near}, {p_value}"


def spell_mean(amount: Amount, mean: float, digits: int = 1) -> str:
    """A mean of the amount: ``1,240``, ``$0.0031`` or ``64.0 %``."""
    if amount.measure == COST:
        return dollars(mean)
    return percent(mean, digits) if amount.is_share else in_digits(mean, digits)


def spell_change(amount: Amount) -> str:
    """The change of an amount with its interval; empty where it is compared with none."""
    found = amount.difference
    if found is None:
        return ""
    if amount.measure in {TOKENS, COST}:
        return _change(found.change, found.interval)
    if amount.is_share:
        return _points(found.change, found.interval)
    ends = (found.interval.low, found.interval.high)
    low, high = ("?" if end is None else f"{end:.2g}" for end in ends)
    return f"{found.change:+.2g}, {_CONFIDENCE} {low} to {high}"


def amount_text(amount: Amount, found: AmountDifference) -> str:
    """A difference of an amount as a part of a sentence."""
    means = against(found.mean, found.other_mean, partial(spell_mean, amount))
    if amount.measure == TOKENS:
        means += " tokens a request"
    elif amount.measure == COST:
        means = f"a request costs {means}"
    else:
        means = f"{named(amount.measure)} {means}"
    return f"{means} ({spell_change(amount)})"


def _both(ratio: Ratio) -> str:
    return against(ratio.durations[0] / 1000, ratio.durations[1] / 1000, in_ms)


def _points(difference: float, interval: Interval) -> str:
    low, high = (100 * (end or 0.0) for end in (interval.low, interval.high))
    return f"{100 * difference:+.1f} points, {_CONFIDENCE} {low:.1f} to {high:.1f}"


def _change(change: float, interval: Interval) -> str:
    ends = " to ".join("?" if end is None else f"{100 * end:.0f}" for end in (interval.low, interval.high))
    return f"{100 * change:+.0f} %, {_CONFIDENCE} {ends}"


def _p(p_value: float) -> str:
    return f"p < {_SMALLEST_P}" if p_value < _SMALLEST_P else f"p = {p_value:.2g}"


# Sentences

_DIFFERENT: Final = (Verdict.WORSE, Verdict.BETTER)
_ORDER: Final = (*_DIFFERENT, Verdict.NO_DIFFERENCE, Verdict.TOO_FEW)
_MOST_SINGLE: Final = 4  # further values share a sentence
_MOST_NAMED: Final = 12
_TOGETHER: Final = {
    Verdict.WORSE: "Also worse:",
    Verdict.BETTER: "Also better:",
    Verdict.NO_DIFFERENCE: "No difference seen for",
    Verdict.TOO_FEW: "Too few traces to judge",
}


def sentence(row: Row, first_seen: str = "") -> str:
    """The verdict on one value with its reason; empty without a verdict.

    ``first_seen`` is a time to mention if the value is worse.
    """
    value, other = named(row.value), named(row.against or "")
    match row.verdict:
        case None:
            return ""
        case Verdict.NO_DIFFERENCE:
            return f"No difference seen between {value} and {other}: {row.reason}."
        case Verdict.TOO_FEW:
            return f"Too few traces to judge {value} against {other}: {row.reason}."
    since = f", first seen {first_seen}," if first_seen and row.verdict is Verdict.WORSE else ""
    return f"{value}{since} is {row.verdict} than {other}: {row.reason}."


def headline(comparison: Comparison) -> str:
    """All verdicts in one line: the worse values, else the better ones, else that no difference was seen."""
    judged = [row for row in comparison.rows if row.verdict is not None]
    if not judged:
        return "nothing to compare with" if comparison.rows else "no traces"
    for verdict in _DIFFERENT:
        found = [row for row in judged if row.verdict is verdict]
        if len(found) == 1:
            return f"{named(found[0].value)} is {verdict} than {named(found[0].against or '')}"
        if found:
            return f"{len(found)} of {len(judged)} are {verdict}"
    if any(row.verdict is Verdict.NO_DIFFERENCE for row in judged):
        return str(Verdict.NO_DIFFERENCE)
    return str(Verdict.TOO_FEW)


@dataclass(frozen=True, slots=True)
class VerdictSentence:
    """One sentence, and the verdict it states."""

    verdict: Verdict
    text: str


def summary(comparison: Comparison, moment: Callable[[int], str] | None = None) -> list[VerdictSentence]:
    """The verdicts in a few sentences: the worse ones first, equal verdicts together.

    ``moment`` formats a time in ms, for when a worse value was first seen.
    """
    sentences: list[VerdictSentence] = []
    for verdict in Verdict:
        rows = [row for row in reversed(comparison.rows) if row.verdict is verdict]
        if verdict in _DIFFERENT or len(rows) == 1:
            single, rows = rows[:_MOST_SINGLE], rows[_MOST_SINGLE:]
            texts = (sentence(row, moment(row.first_seen) if moment else "") for row in single)
            sentences += (VerdictSentence(verdict, text) for text in texts)
        if rows:
            sentences.append(VerdictSentence(verdict, _together(verdict, rows)))
    return sorted(sentences, key=lambda one: _ORDER.index(one.verdict))


def _together(verdict: Verdict, rows: Sequence[Row]) -> str:
    names = [named(row.value) for row in rows[:_MOST_NAMED]]
    if len(rows) > _MOST_NAMED:
        names.append(f"{len(rows) - _MOST_NAMED} more")
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{_TOGETHER[verdict]} {listed}."
