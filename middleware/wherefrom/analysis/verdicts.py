"""The verdict on one value compared with another: the tests, the decision, and its sentences.

Error rates are compared by Fisher's exact test; durations by the Mann-Whitney U test, which asks whether
traces tend to take longer, and by a quantile test, which asks whether more of them are slow. All p-values of
a comparison, three for each pair of values, are corrected together by Holm's method.

- ``too few traces``: one of the two has fewer than 30; nothing is tested. With 30 of each, an error rate of
  45 % against 5 %, or durations longer by one standard deviation, are found nine times in ten.
- ``worse``: the error rate is higher, or traces take longer, or more of them are slow.
- ``better``: the opposite of one of these, and none of them.
- ``no difference seen``: none of either.

A difference is seen when its corrected p-value is below 1 - confidence. A difference in latency must also
matter, because among a million traces any difference is significant: a quantile has to differ by 5 % or
more. Where there are fewer errors and traces are slower, only the traces that succeeded decide, because
failing fast is no merit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final, NamedTuple

from .._buckets import last_of
from .results import Comparison, ErrorDifference, Group, LatencyDifference, Row, TailDifference, Verdict
from .statistics import (
    Sample,
    confint_proportions_2indep,
    fisher_exact,
    holm_correction,
    mannwhitneyu,
    quantile,
)

# Tests

MIN_TRACES: Final = 30  # see the module docstring
MIN_CHANGE: Final = 0.05  # significant but smaller changes do not matter in practice

# The share of both samples that counts as slow: 5 % or 40 traces, whichever is less, but at least 1 %.
_MOST_SLOW: Final = 0.05
_ENOUGH_SLOW: Final = 40
_LEAST_SLOW: Final = 0.01

Difference = ErrorDifference | LatencyDifference | TailDifference


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
    """The differences found for a pair; ``None`` for those that too few traces show."""

    errors: ErrorDifference | None = None
    latency: LatencyDifference | None = None
    tail: TailDifference | None = None

    def __iter__(self) -> Iterator[Difference]:
        return (test for test in (self.errors, self.latency, self.tail) if test is not None)


def run_tests(pairs: Sequence[Pair], confidence: float) -> list[Tests]:
    """The tests of each pair, corrected for the number of tests of all pairs."""
    found = [_test(pair, confidence) if pair.is_enough else Tests() for pair in pairs]
    p_values = iter(holm_correction([test.p_value for tests in found for test in tests]))
    return [_corrected(tests, p_values) for tests in found]


def compare_durations(durations: Sample, others: Sample) -> tuple[LatencyDifference, TailDifference] | None:
    """Whether traces take longer, and whether more are slow; ``None`` where too few have a duration."""
    if min(len(durations), len(others)) < MIN_TRACES:
        return None
    return _compare_ranks(durations, others), _compare_tails(durations, others)


def _test(pair: Pair, confidence: float) -> Tests:
    latency = compare_durations(pair.group.durations, pair.other.durations) or (None, None)
    return Tests(_compare_errors(pair, confidence), *latency)


def _corrected(tests: Tests, p_values: Iterator[float]) -> Tests:
    return Tests(
        tests.errors and replace(tests.errors, p_adjusted=next(p_values)),
        tests.latency and replace(tests.latency, p_adjusted=next(p_values)),
        tests.tail and replace(tests.tail, p_adjusted=next(p_values)),
    )


def _compare_errors(pair: Pair, confidence: float) -> ErrorDifference:
    group, other = pair
    counts = group.errors, group.traces, other.errors, other.traces
    difference = group.errors / group.traces - other.errors / other.traces
    p_value = fisher_exact(*counts)
    return ErrorDifference(difference, confint_proportions_2indep(*counts, confidence), p_value, p_value)


def _compare_ranks(durations: Sample, others: Sample) -> LatencyDifference:
    ranks = mannwhitneyu(durations, others)
    changes = p50, p95 = _Change.at(0.5, durations, others), _Change.at(0.95, durations, others)
    matters = any(change.matters(ranks.superiority > 0.5) for change in changes)
    longer = p50.longer / 1000, p95.longer / 1000, p50.share, p95.share
    return LatencyDifference(*longer, ranks.superiority, matters, ranks.p_value, ranks.p_value)


def _compare_tails(durations: Sample, others: Sample) -> TailDifference:
    """A quantile test (Westenberg 1948): the counts above one limit, compared by Fisher's test."""
    n, m = len(durations), len(others)
    slowest = ceil(max(_LEAST_SLOW * (n + m), min(_MOST_SLOW * (n + m), _ENOUGH_SLOW)))
    limit = (durations + others).bucket_at(n + m - slowest - 1)
    slow, other_slow = n - durations.below(limit + 1), m - others.below(limit + 1)
    changes = [_Change.at(share, durations, others) for share in (0.95, 0.99)]
    matters = any(change.matters(slow / n > other_slow / m) for change in changes)
    p_value = fisher_exact(slow, n, other_slow, m)
    return TailDifference(last_of(limit) / 1000, slow / n, other_slow / m, matters, p_value, p_value)


class _Change(NamedTuple):
    """The difference of a quantile from the other's, in µs."""

    longer: float
    before: float

    @classmethod
    def at(cls, share: float, durations: Sample, others: Sample) -> _Change:
        before = quantile(others, share)
        return cls(quantile(durations, share) - before, before)

    @property
    def share(self) -> float | None:
        return self.longer / self.before if self.before else None

    def matters(self, slower: bool) -> bool:
        longer = self.longer if slower else -self.longer
        return 0 < longer >= MIN_CHANGE * self.before


# Decision

_VERDICTS: Final = {1: Verdict.WORSE, -1: Verdict.BETTER, 0: Verdict.NO_DIFFERENCE}


class Judgement(NamedTuple):
    """A verdict, the reason for it, and the tests behind it."""

    verdict: Verdict
    reason: str
    tests: Tests


def judge(pairs: Sequence[Pair], confidence: float) -> list[Judgement]:
    """The judgements on all pairs of one comparison."""
    found = run_tests(pairs, confidence)
    return [_decide(pair, tests, 1 - confidence) for pair, tests in zip(pairs, found, strict=True)]


def _decide(pair: Pair, tests: Tests, alpha: float) -> Judgement:
    if tests.errors is None:
        return Judgement(Verdict.TOO_FEW, too_few(pair), tests)
    seen = [test for test in tests if _direction(test, alpha)]
    towards, remark = _balance(seen), ""
    if towards > 0 and _is_by_fewer_errors(pair, tests, alpha):
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


def _is_by_fewer_errors(pair: Pair, tests: Tests, alpha: float) -> bool:
    """Whether traces are slower only because fewer of them fail fast."""
    if tests.errors is None or _direction(tests.errors, alpha) >= 0:
        return False
    succeeded = compare_durations(pair.group.succeeded, pair.other.succeeded) or ()
    return all(_direction(test, alpha) <= 0 for test in succeeded)


# Reasons

_DIRECTIONS: Final = {1: "slower: ", -1: "faster: ", 0: ""}
_FEWER_OR_MORE: Final = {1: "more", -1: "fewer"}
_SMALLEST_P: Final = 0.0001  # smaller p-values depend on assumptions too much to be quoted
_MAX_DIGITS: Final = 5


def too_few(pair: Pair) -> str:
    """Why nothing was tested."""
    return f"{pair.group.traces:,} and {pair.other.traces:,} traces, but {MIN_TRACES} of each are needed"


def reason(pair: Pair, tests: Tests, seen: Sequence[Difference], towards: int) -> str:
    """The differences seen, those in the verdict's direction first; where none was seen, all tests.

    A direction is 1 for worse, -1 for better.
    """
    if not seen:
        texts = [_text(pair, test, 0) for test in tests if not isinstance(test, TailDifference)]
    else:
        shown = [test for test in seen if not _is_implied(test, seen)]
        shown.sort(key=lambda test: test.direction != towards)
        texts = [
            ("" if test.direction == towards else "but ") + _text(pair, test, test.direction)
            for test in shown
        ]
    return f"{'; '.join(texts)}, {pair.group.traces:,} and {pair.other.traces:,} traces"


def _is_implied(test: Difference, seen: Sequence[Difference]) -> bool:
    """Whether the p95 of the latency difference already shows it."""
    if not isinstance(test, TailDifference):
        return False
    return any(isinstance(other, LatencyDifference) and other.direction == test.direction for other in seen)


def _text(pair: Pair, test: Difference, direction: int) -> str:
    p_value = _p(test.p_adjusted)
    if isinstance(test, ErrorDifference):
        return f"error rate {_rates(pair)}, {p_value}"
    if isinstance(test, TailDifference):
        shares = _against(test.share, test.other_share, _percent)
        return f"{_FEWER_OR_MORE[direction]} slow traces: {shares} take over {_ms(test.limit, 1)}, {p_value}"
    figures = f"{_DIRECTIONS[direction]}p50 {_durations(pair, 0.5)}, p95 {_durations(pair, 0.95)}"
    near = ", less than 5 % apart" if _is_near(test.p50_change) and _is_near(test.p95_change) else ""
    return f"{figures}{near}, {p_value}"


def _rates(pair: Pair) -> str:
    rate, other = (group.errors / group.traces for group in pair)
    return _against(rate, other, _percent)


def _durations(pair: Pair, share: float) -> str:
    longer, other = (quantile(group.durations, share) / 1000 for group in pair)
    return _against(longer, other, _ms)


def _is_near(change: float | None) -> bool:
    return change is not None and abs(change) < MIN_CHANGE


def _against(value: float, other: float, written: Callable[[float, int], str]) -> str:
    """Both values, with enough digits to distinguish them."""
    digits = 1
    while value != other and written(value, digits) == written(other, digits) and digits < _MAX_DIGITS:
        digits += 1
    return f"{written(value, digits)} against {written(other, digits)}"


def _percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f} %"


def _ms(value: float, digits: int) -> str:
    whole = digits - 1 if value >= 100 else digits
    return f"{value:,.{whole}f} ms"


def _p(p_value: float) -> str:
    return f"p < {_SMALLEST_P}" if p_value < _SMALLEST_P else f"p = {p_value:.2g}"


# Sentences

_DIFFERENT: Final = (Verdict.WORSE, Verdict.BETTER)
_ORDER: Final = (*_DIFFERENT, Verdict.NO_DIFFERENCE, Verdict.TOO_FEW)
_MOST_SINGLE: Final = 4  # further values share a sentence
_MOST_NAMED: Final = 12
_LONGEST_NAME: Final = 80
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
    value, against = _named(row.value), _named(row.against or "")
    match row.verdict:
        case None:
            return ""
        case Verdict.NO_DIFFERENCE:
            return f"No difference seen between {value} and {against}: {row.reason}."
        case Verdict.TOO_FEW:
            return f"Too few traces to judge {value} against {against}: {row.reason}."
    since = f", first seen {first_seen}," if first_seen and row.verdict is Verdict.WORSE else ""
    return f"{value}{since} is {row.verdict} than {against}: {row.reason}."


def headline(comparison: Comparison) -> str:
    """All verdicts in one line: the worse values, else the better ones, else that no difference was seen."""
    judged = [row for row in comparison.rows if row.verdict is not None]
    if not judged:
        return "nothing to compare with" if comparison.rows else "no traces"
    for verdict in _DIFFERENT:
        found = [row for row in judged if row.verdict is verdict]
        if len(found) == 1:
            return f"{_named(found[0].value)} is {verdict} than {_named(found[0].against or '')}"
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
    names = [_named(row.value) for row in rows[:_MOST_NAMED]]
    if len(rows) > _MOST_NAMED:
        names.append(f"{len(rows) - _MOST_NAMED} more")
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{_TOGETHER[verdict]} {listed}."


def _named(value: str) -> str:
    """A value, truncated to fit into a sentence."""
    return value if len(value) <= _LONGEST_NAME else f"{value[: _LONGEST_NAME - 1]}…"
