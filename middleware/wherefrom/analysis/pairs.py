"""Two groups and the tests between them, all the p-values of a comparison corrected together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final, NamedTuple

from .groups import Group
from .results import ErrorDifference, LatencyDifference, TailDifference
from .statistics import Sample, fisher_exact, holm, mann_whitney, newcombe, quantile

MIN_TRACES: Final = 30
MIN_CHANGE: Final = 0.05

# The slowest traces, of both together: 5 % of few, 40 where that is less, but never below 1 %.
_MOST_SLOW: Final = 0.05
_ENOUGH_SLOW: Final = 40
_LEAST_SLOW: Final = 0.01

Difference = ErrorDifference | LatencyDifference | TailDifference


class Pair(NamedTuple):
    """A group, and the one it is compared with."""

    group: Group
    other: Group

    @property
    def is_enough(self) -> bool:
        """Whether both have the traces that a test needs."""
        return min(self.group.traces, self.other.traces) >= MIN_TRACES


@dataclass(frozen=True, slots=True)
class Tests:
    """What was found of a pair; ``None`` for what too few traces tell of."""

    errors: ErrorDifference | None = None
    latency: LatencyDifference | None = None
    tail: TailDifference | None = None

    def __iter__(self) -> Iterator[Difference]:
        return (test for test in (self.errors, self.latency, self.tail) if test is not None)


def run_tests(pairs: Sequence[Pair], confidence: float) -> list[Tests]:
    """The tests of each pair, corrected for how many there are of all pairs."""
    found = [_test(pair, confidence) if pair.is_enough else Tests() for pair in pairs]
    p_values = iter(holm([test.p_value for tests in found for test in tests]))
    return [_corrected(tests, p_values) for tests in found]


def compare_durations(durations: Sample, others: Sample) -> tuple[LatencyDifference, TailDifference] | None:
    """``None`` where too few traces have a duration."""
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
    return ErrorDifference(difference, newcombe(*counts, confidence), p_value, p_value)


def _compare_ranks(durations: Sample, others: Sample) -> LatencyDifference:
    """Do traces tend to take longer?"""
    ranks = mann_whitney(durations, others)
    changes = p50, p95 = _Change.at(0.5, durations, others), _Change.at(0.95, durations, others)
    matters = any(change.matters(ranks.share > 0.5) for change in changes)
    longer = p50.longer / 1000, p95.longer / 1000, p50.share, p95.share
    return LatencyDifference(*longer, ranks.share, matters, ranks.p_value, ranks.p_value)


def _compare_tails(durations: Sample, others: Sample) -> TailDifference:
    """Are more of them slow? A quantile test (Westenberg 1948): the one limit for both, counts by Fisher."""
    n, m = len(durations), len(others)
    limit = _nth_of_both(durations, others, n + m - _slowest(n + m))
    slow, other_slow = n - bisect_right(durations, limit), m - bisect_right(others, limit)
    changes = [_Change.at(share, durations, others) for share in (0.95, 0.99)]
    matters = any(change.matters(slow / n > other_slow / m) for change in changes)
    p_value = fisher_exact(slow, n, other_slow, m)
    return TailDifference(limit / 1000, slow / n, other_slow / m, matters, p_value, p_value)


def _slowest(total: int) -> int:
    return ceil(max(_LEAST_SLOW * total, min(_MOST_SLOW * total, _ENOUGH_SLOW)))


def _nth_of_both(first: Sample, second: Sample, rank: int) -> int:
    """The least value that ``rank`` of both together do not exceed."""
    values = range(min(first[0], second[0]), max(first[-1], second[-1]) + 1)

    def reached(value: int) -> int:
        return bisect_right(first, value) + bisect_right(second, value)

    return values[bisect_left(values, rank, key=reached)]


class _Change(NamedTuple):
    """How much longer a quantile is than the other's, in µs."""

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
