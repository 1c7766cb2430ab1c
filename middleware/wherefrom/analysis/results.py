"""The result of a comparison: one row for each value, with the value that it was compared with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar, Final

from .._records import Tabular
from ..stores.base import Tokens
from .statistics import Interval, Sample


class Verdict(StrEnum):
    """The verdict on one value compared with another."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference seen"
    TOO_FEW = "too few traces"


@dataclass(frozen=True)
class Group:
    """The traces with one value; times in ms since the epoch."""

    value: str
    traces: int
    errors: int
    first_seen: int
    last_seen: int
    succeeded: Sample
    failed: Sample
    tokens: Tokens | None = None

    @cached_property
    def durations(self) -> Sample:
        """The durations of all its traces."""
        return self.succeeded + self.failed


@dataclass(frozen=True, slots=True)
class ErrorDifference:
    """The difference of two error rates: this one minus the other, with its interval.

    Of the same mix of strata, and with a variance that counts processes and stretches of time, not traces.
    ``p_adjusted`` is the p-value after Holm's correction.
    """

    difference: float
    interval: Interval
    p_value: float
    p_adjusted: float

    @property
    def direction(self) -> int:
        """1 for more errors, -1 for fewer, 0 for as many."""
        return _sign(self.difference)


@dataclass(frozen=True, slots=True)
class LatencyDifference:
    """The difference of two samples of durations: of p50 and p95, in ms and relative to the other sample.

    All but ``slower_share`` are of the same mix of strata. ``slower_share`` is the probability that a trace
    of this value takes longer than one of the other: 0.5 if neither tends to be slower. ``change`` is that of
    the geometric mean, 0.1 for 10 % longer, with its interval; ``p95_interval`` is that of ``p95_change``.
    ``matters``: ``change`` is 5 % or more. ``p_adjusted`` is the p-value after Holm's correction.
    """

    p50: float
    p95: float
    p50_change: float | None
    p95_change: float | None
    p95_interval: Interval
    change: float
    interval: Interval
    slower_share: float
    matters: bool
    p_value: float
    p_adjusted: float

    @property
    def direction(self) -> int:
        """1 for slower, -1 for faster, 0 where it does not matter."""
        return _sign(self.change) if self.matters else 0


@dataclass(frozen=True, slots=True)
class TailDifference:
    """The difference of the slowest traces: the share of each sample that takes longer than ``limit``, in ms.

    The limit is chosen so that 1 to 5 % of both samples exceed it, more if there are few traces. ``interval``
    is that of the difference of the shares. ``matters``: p95 or p99 differs by 5 % or more. ``p_adjusted`` is
    the p-value after Holm's correction.
    """

    limit: float
    share: float
    other_share: float
    interval: Interval
    matters: bool
    p_value: float
    p_adjusted: float

    @property
    def direction(self) -> int:
        """1 for more slow traces, -1 for fewer, 0 where it does not matter."""
        return _sign(self.share - self.other_share) if self.matters else 0


@dataclass(frozen=True, slots=True)
class StratumDifference:
    """The difference of one stratum, such as a route, which stands out from the rest.

    ``measure`` is ``errors``, whose change is one of the error rate, or ``durations``, whose change is
    relative: 0.1 for 10 % longer.
    """

    stratum: str
    measure: str
    change: float
    interval: Interval
    p_adjusted: float

    @property
    def direction(self) -> int:
        """1 for worse, -1 for better."""
        return _sign(self.change)


@dataclass(frozen=True, slots=True)
class AmountDifference:
    """The difference of the means of an amount, of the same mix of strata.

    ``change`` of tokens and cost is relative: 0.1 for 10 % more. That of feedback is the difference of the
    means, which are shares where it is true or false. ``matters``: tokens and cost differ by 5 % or more.
    ``p_adjusted`` is the p-value after Holm's correction for all amounts of the comparison. More is neither
    better nor worse: amounts are no part of the verdict.
    """

    mean: float
    other_mean: float
    change: float
    interval: Interval
    matters: bool
    p_value: float
    p_adjusted: float

    @property
    def direction(self) -> int:
        """1 for more, -1 for less, 0 where it does not matter."""
        return _sign(self.change) if self.matters else 0


@dataclass(frozen=True, slots=True)
class Amount:
    """The mean of ``tokens`` or of ``cost`` (in dollars) a request, or of ``feedback.<name>``.

    ``traces`` are those whose amount is known, of the strata (routes) that have model calls at all; of
    feedback it is how often it was given. ``is_share``: it is true or false, and the mean is the share of
    true.
    """

    measure: str
    traces: int
    mean: float
    is_share: bool
    difference: AmountDifference | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One value; durations are in ms, times in ms since the epoch.

    ``filter`` selects its traces, ``None`` if no filter can. ``traces_per_hour`` is the number of traces over
    the time from the first to the last. ``against`` is the value that it is compared with; without one there
    is no verdict. ``histogram`` has the number of durations between each two ``edges`` of the comparison.
    ``strata`` are those, such as routes, that stand out. ``amounts`` are tokens, cost and feedback.
    """

    value: str
    traces: int
    errors: int
    error_rate: float
    error_rate_interval: Interval
    p50: float | None
    p50_interval: Interval
    p95: float | None
    p95_interval: Interval
    p99: float | None
    p99_interval: Interval
    traces_per_hour: float | None
    first_seen: int
    last_seen: int
    tokens: Tokens | None
    filter: str | None = None
    against: str | None = None
    error_difference: ErrorDifference | None = None
    latency_difference: LatencyDifference | None = None
    tail_difference: TailDifference | None = None
    strata: tuple[StratumDifference, ...] = ()
    amounts: tuple[Amount, ...] = ()
    verdict: Verdict | None = None
    reason: str = ""
    histogram: tuple[int, ...] = ()


_VISIBLE: Final = 0.0005  # rates are shown with one digit of a percentage


@dataclass(frozen=True, slots=True)
class Comparison(Tabular):
    """Rows in the order in which their values were first seen.

    ``baseline`` is the value that all others were compared with, if there is one. ``left_out`` counts the
    traces that pass the filter and have no value; ``other_values`` counts the values that are not shown,
    which have fewer traces. ``tests`` is the number of p-values that were corrected together. ``edges``, in
    ms, are the steps of the histograms; the first and the last step include what lies beyond. ``sequential``:
    the tests are anytime-valid, so the comparison may be made again and again while traces arrive.
    """

    by: str
    rows: tuple[Row, ...]
    baseline: str | None
    left_out: int
    other_values: int
    tests: int
    confidence: float
    sequential: bool = False
    filter_string: str | None = None
    experiment: str | None = None
    edges: tuple[float, ...] = ()

    _columns: ClassVar = (
        "value",
        "traces",
        "errors",
        "error_rate",
        "p50",
        "p95",
        "against",
        "verdict",
        "reason",
    )

    def _rows(self) -> Iterable[object]:
        return self.rows

    @property
    def is_reweighted(self) -> bool:
        """Whether differences are not those of the rows, as both sides are given the same mix of strata."""
        rates = {row.value: row.error_rate for row in self.rows}
        return any(
            row.error_difference is not None
            and row.against in rates
            and abs(row.error_rate - rates[row.against] - row.error_difference.difference) >= _VISIBLE
            for row in self.rows
        )

    def row(self, value: str) -> Row:
        """The row of a value.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if row.value == value:
                return row
        raise KeyError(value)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that can be written as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Regression:
    """The release that is worse, the one before it, and the release that ended the regression, if any."""

    began: str
    after: str
    reason: str
    ended: str | None = None


@dataclass(frozen=True, slots=True)
class Versions(Comparison):
    """Releases, each compared with the one before it, and the regressions among them."""

    regressions: tuple[Regression, ...] = ()

    @property
    def regression(self) -> Regression | None:
        """The oldest regression that no release has ended."""
        return next((regression for regression in self.regressions if regression.ended is None), None)


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)
