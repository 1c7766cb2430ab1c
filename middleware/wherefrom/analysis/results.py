"""What a comparison answers: a row a value, and what it was compared with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from .statistics import Interval


class Verdict(StrEnum):
    """What can be said of one value against another."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference seen"
    TOO_FEW = "too few traces"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens used, summed over the ``traces`` that tell."""

    traces: int
    input: int
    output: int
    total: int


@dataclass(frozen=True, slots=True)
class ErrorDifference:
    """Of two error rates: ``difference`` is this one minus the other's, with its Newcombe interval.

    ``p_value`` is Fisher's, two-sided and exact; ``p_adjusted`` is what Holm's correction makes of it.
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
    """Of two sets of durations: how much longer p50 and p95 are, in ms and as a share of the other's.

    ``slower_share`` is how often a trace of this value takes longer than one of the other: 0.5 where
    neither tends to. ``matters``: p50 or p95 moves that way by 5 % or more. ``p_value`` is Mann and
    Whitney's; ``p_adjusted`` is what Holm's correction makes of it.
    """

    p50: float
    p95: float
    p50_change: float | None
    p95_change: float | None
    slower_share: float
    matters: bool
    p_value: float
    p_adjusted: float

    @property
    def direction(self) -> int:
        """1 for slower, -1 for faster, 0 where it does not matter."""
        return _sign(self.slower_share - 0.5) if self.matters else 0


@dataclass(frozen=True, slots=True)
class TailDifference:
    """Of the slowest traces: which share of each takes longer than the ``limit``, in ms.

    Of both together 1 to 5 % do, the more the fewer there are. ``matters``: p95 or p99 moves the same way
    by 5 % or more.
    ``p_value`` is Fisher's, two-sided and exact; ``p_adjusted`` is what Holm's correction makes of it.
    """

    limit: float
    share: float
    other_share: float
    matters: bool
    p_value: float
    p_adjusted: float

    @property
    def direction(self) -> int:
        """1 for more slow traces, -1 for fewer, 0 where it does not matter."""
        return _sign(self.share - self.other_share) if self.matters else 0


@dataclass(frozen=True, slots=True)
class Row:
    """One value: durations are in ms, times in ms since the epoch.

    ``traces_per_hour`` is the number of traces over the time from the first to the last. ``against`` names
    the value it was compared with; the row that nothing was compared with has no verdict. ``histogram`` is
    how many durations lie between each two ``edges`` of the comparison.
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
    against: str | None = None
    error_difference: ErrorDifference | None = None
    latency_difference: LatencyDifference | None = None
    tail_difference: TailDifference | None = None
    verdict: Verdict | None = None
    reason: str = ""
    histogram: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows in the order in which their values were first seen.

    ``baseline`` is the value that the others were compared with, where it is one. ``left_out`` traces pass
    the filter and have no value; ``other_values`` have fewer traces than the values shown.
    ``tests`` is for how many p-values they are corrected. ``edges``, in ms, are the steps of the
    histograms; the first and the last step hold what lies beyond them too.
    """

    by: str
    rows: tuple[Row, ...]
    baseline: str | None
    left_out: int
    other_values: int
    tests: int
    confidence: float
    filter_string: str | None = None
    experiment: str | None = None
    edges: tuple[float, ...] = ()

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
        """All of it as JSON takes it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Regression:
    """The release with which it began, the one before it, and the release that ended it, if one did."""

    began: str
    after: str
    reason: str
    ended: str | None = None


@dataclass(frozen=True, slots=True)
class Versions(Comparison):
    """Releases, each compared with the one before it, and where what got worse began."""

    regressions: tuple[Regression, ...] = ()

    @property
    def regression(self) -> Regression | None:
        """The oldest one that no release has ended."""
        return next((regression for regression in self.regressions if regression.ended is None), None)


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)
