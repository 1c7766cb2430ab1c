"""A gate for deployments: is a candidate, for sure, not worse than a baseline by more than a limit?

"No difference seen" is no reason to let a release pass: a few traces show no difference either. So the gate
tests the limit instead: a test of non-inferiority (Schuirmann 1987, A comparison of the two one-sided tests
procedure and the power approach. J. Pharmacokinetics and Biopharmaceutics 15, 657-680). Each criterion has
a confidence interval for its increase, from processes and stretches of time as in ``evidence``:

- ``pass``: the upper end is below the limit, at 95 % on this side.
- ``fail``: the lower end is above the limit, at 95 % divided by the number of criteria (Bonferroni).
- ``inconclusive``: the limit is inside.

All criteria have to pass, so passing needs no correction: a candidate beyond one limit passes with a chance
of at most 5 %, whatever the others show (Berger 1982, Multiparameter hypothesis testing and acceptance
sampling. Technometrics 24, 295-300). A route that is named as worse by the comparison, and for sure beyond
the limit by itself, fails too.

Intervals hold for a gate that is asked again and again (``anytime``), unless it is asked ``once``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from .. import keys
from .._units import counted
from ..exceptions import FilterError
from ..query.errors import did_you_mean
from ..query.fields import Field, Operator
from ..query.tree import And, Compare, flatten, format_filter
from ..stores import Selection, Snapshot
from .blocks import MIN_TRACES, Count, Traffic
from .clusters import Estimate
from .comparison import STRATIFY, Report, make_group, make_report, read_blocks
from .distributions import one_look_level, t_quantile
from .evidence import Effect, Evidence, Needed, Ratio, gather, needed
from .scope import Window, find_grouping
from .statistics import Interval, confint_proportions_2indep
from .verdicts import Pair
from .wording import against, in_ms, named, percent

_LEVEL: Final = 0.05
_LARGEST_LOG: Final = 20.0  # a factor of 500 million: nothing is known
_MOST_TIMES: Final = 1000.0
_MOST_PROCESSES: Final = 10_000
_MS_PER_MINUTE: Final = 60_000
_QUANTILES: Final = {"p50": 0.5, "p95": 0.95}


# Limits

_NUMBER: Final = re.compile(r"\+?([0-9]{1,6}(?:\.[0-9]{1,6})?)\s?(pp|%)?", re.ASCII)
_NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Limits:
    """By how much a candidate may be worse; ``None`` is not tested.

    ``errors`` is a difference of error rates: 0.01 is one percentage point. ``p95`` and ``p50`` are relative:
    0.1 is 10 % longer.
    """

    errors: float | None = 0.01
    p95: float | None = 0.10
    p50: float | None = None

    def __post_init__(self) -> None:
        if not self.given:
            raise FilterError("a gate needs a limit: for errors, p95 or p50")

    @property
    def given(self) -> dict[str, float]:
        """The limits that are tested, by measure."""
        known = {"errors": self.errors, "p95": self.p95, "p50": self.p50}
        return {measure: limit for measure, limit in known.items() if limit is not None}

    @classmethod
    def read(cls, *, errors: str = "1pp", p95: str = "10%", p50: str = _NONE) -> Limits:
        """Limits as they are written: ``1pp``, ``10%``, or ``none``.

        Raises:
            FilterError: one cannot be read, or all are ``none``.
        """
        return cls(
            _read("errors", errors, "pp", "1pp, in percentage points"),
            _read("p95", p95, "%", "10%, relative to the baseline"),
            _read("p50", p50, "%", "10%, relative to the baseline"),
        )


def _read(measure: str, text: str, unit: str, example: str) -> float | None:
    if text.strip() == _NONE:
        return None
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[2] != unit or (unit == "pp" and float(match[1]) > 100):
        shown = text if len(text) <= 40 else f"{text[:39]}…"
        raise FilterError(
            f"the limit for {measure} takes an increase such as {example}, or none; not {shown!r}"
        )
    return float(match[1]) / 100


# Criteria


class Outcome(StrEnum):
    """What a gate answers; ``inconclusive``: there is not enough evidence yet."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One limit and what is known of it.

    ``measure`` is ``errors``, ``p95`` or ``p50``, and for one ``stratum``, such as a route, ``errors`` or
    ``durations``. ``baseline`` and ``candidate`` are error rates or durations in ms, both of the same mix of
    routes. ``increase``, its ``interval`` and ``limit`` are differences of rates, or relative: 0.1 for 10 %
    longer. The upper end of the interval decides whether it passes, the lower one whether it fails; an end
    is ``None`` where nothing is known.
    """

    measure: str
    stratum: str | None
    result: Outcome
    limit: float
    baseline: float | None
    candidate: float | None
    increase: float | None
    interval: Interval
    score: float
    needed: Needed | None = None
    text: str = ""

    def worded(self) -> Criterion:
        """The same with its figures in words as ``text``."""
        unit = " points" if self.measure == "errors" else " %"
        figures = f"{_hundred(self.increase)}{unit}"
        if self.interval.low is not None and self.result is not Outcome.PASS:
            figures += f", at least {_hundred(self.interval.low)}"
        if self.interval.high is not None and self.result is not Outcome.FAIL:
            figures += f", at most {_hundred(self.interval.high)}"
        values = ""
        if self.baseline is not None and self.candidate is not None:
            written = percent if self.measure == "errors" else in_ms
            values = f" {against(self.candidate, self.baseline, written)}"
        where = "" if self.stratum is None else f"{named(self.stratum)}: "
        text = f"{where}{self.measure}{values} ({figures}; limit {_hundred(self.limit)}{unit})"
        return replace(self, text=text)


def _hundred(share: float | None) -> str:
    """``+1.5`` for 0.015."""
    return "?" if share is None else f"{100 * share:+,.3g}"


@dataclass(frozen=True, slots=True)
class _Known:
    """An increase on the scale on which it is estimated, its ends, and what a limit is there."""

    estimate: Estimate
    low: float
    high: float
    limit: float


def judge_limits(evidence: Evidence, limits: Limits, *, anytime: bool = True) -> tuple[Criterion, ...]:
    """The criteria for side 0, the candidate, against side 1; none where too few traces can be compared.

    Strata, such as routes, are only there where they fail.
    """
    tests = len(limits.given)
    found: list[Criterion] = []
    for measure, limit in limits.given.items():
        if measure == "errors":
            effect = evidence.find("errors")
            if effect is not None:
                found.append(_errors(effect, evidence, limit, tests, anytime=anytime))
        else:
            ratio = evidence.p95 if measure == "p95" else evidence.p50
            if ratio is not None:
                found.append(_latency(measure, ratio, evidence, limit, tests, anytime=anytime))
    if len(found) < tests:
        return ()
    return tuple(one.worded() for one in (*found, *_strata(evidence, limits, anytime=anytime)))


def _errors(effect: Effect, evidence: Evidence, limit: float, tests: int, *, anytime: bool) -> Criterion:
    estimate = effect.estimate
    low, high = _ends(estimate, tests, anytime=anytime)
    # Few errors are skewed, and none have no variance: the ends are at least those of independent traces.
    pairs = [(round(rate * n), n) for rate, n in zip(effect.rates, evidence.traces, strict=True)]
    newcombe = [
        confint_proportions_2indep(*pairs[0], *pairs[1], 1 - _one_look(2 * _LEVEL / share, estimate, anytime))
        for share in (tests, 1)
    ]
    low = min(low - estimate.step / 2, newcombe[0].low or 0.0)
    high = max(high + estimate.step / 2, newcombe[1].high or 0.0)
    known = _Known(estimate, low, high, limit)
    ends = Interval(max(-1.0, low), min(1.0, high))
    lacking = _lacking(known, tests, anytime=anytime)
    candidate, baseline = effect.rates
    return Criterion(
        "errors",
        None,
        _result(known),
        limit,
        baseline,
        candidate,
        estimate.effect,
        ends,
        _score(known),
        lacking,
    )


def _latency(
    measure: str, ratio: Ratio, evidence: Evidence, limit: float, tests: int, *, anytime: bool
) -> Criterion:
    first, second = ratio.durations
    if not first or not second:  # below 1 µs
        nothing = Interval(None, None)
        return Criterion(measure, None, Outcome.INCONCLUSIVE, limit, None, None, None, nothing, 50.0)
    share = _QUANTILES[measure]
    least = share * (1 - share) * sum(1 / traces for traces in evidence.traces)
    shares = replace(ratio.shares, sampling=max(ratio.shares.sampling, least))
    estimate = replace(shares.scaled(ratio.slope), effect=math.log(first / second))
    low, high = _ends(estimate, tests, anytime=anytime)
    # The density is known near the quantile: where traces alone leave more open, the upper end is not known.
    near = min(share, 1 - share) / 2
    z = t_quantile(_one_look(2 * _LEVEL, estimate, anytime), math.inf)
    open_to = z * math.sqrt(shares.sampling) / near
    known = _Known(estimate, low, math.inf if open_to >= 1 else high, math.log1p(limit))
    lacking = Needed(open_to**2, None) if open_to >= 1 else _lacking(known, tests, anytime=anytime)
    return Criterion(
        measure,
        None,
        _result(known),
        limit,
        second / 1000,
        first / 1000,
        first / second - 1,
        Interval(_relative(low), _relative(known.high)),
        _score(known),
        lacking if _result(known) is Outcome.INCONCLUSIVE else None,
    )


def _strata(evidence: Evidence, limits: Limits, *, anytime: bool) -> Iterator[Criterion]:
    """The strata that stand out as worse, and by themselves are beyond the limit for sure."""
    slower = limits.p95 if limits.p50 is None else limits.p50
    for effect in evidence.effects:
        limit = limits.errors if effect.kind == "errors" else slower
        if effect.stratum is None or limit is None or effect.direction <= 0 or effect.p_adjusted >= _LEVEL:
            continue
        is_share = effect.kind == "errors"
        low = effect.estimate.interval(1 - _LEVEL, anytime=anytime).low or 0.0
        if low <= (limit if is_share else math.log1p(limit)):
            continue
        candidate, baseline = effect.rates if is_share else (None, None)
        increase = effect.estimate.effect if is_share else math.expm1(effect.estimate.effect)
        ends = Interval(low if is_share else _relative(low), None)
        yield Criterion(
            effect.kind, effect.stratum, Outcome.FAIL, limit, baseline, candidate, increase, ends, 0.0
        )


def _one_look(level: float, estimate: Estimate, anytime: bool) -> float:
    return one_look_level(level, estimate.traces) if anytime else level


def _ends(estimate: Estimate, tests: int, *, anytime: bool) -> tuple[float, float]:
    """The lower end, corrected for the number of criteria, and the upper end of the increase."""
    return (
        estimate.effect - estimate.reach(1 - 2 * _LEVEL / tests, anytime=anytime),
        estimate.effect + estimate.reach(1 - 2 * _LEVEL, anytime=anytime),
    )


def _result(known: _Known) -> Outcome:
    if known.high < known.limit:
        return Outcome.PASS
    return Outcome.FAIL if known.low > known.limit else Outcome.INCONCLUSIVE


def _score(known: _Known) -> float:
    """100 where it passes, 0 where it fails, 50 where the increase is at the limit."""
    room, effect = known.limit - known.estimate.effect, known.estimate.effect
    end = known.high if room > 0 else known.low
    if end == effect:
        return 50.0 + math.copysign(50.0, room)
    return 50.0 + 50.0 * max(-1.0, min(1.0, room / abs(end - effect)))


def _lacking(known: _Known, tests: int, *, anytime: bool) -> Needed | None:
    """What would decide in four of five cases, if the increase is as it seems; ``None`` if it is decided."""
    if _result(known) is not Outcome.INCONCLUSIVE:
        return None
    room = known.limit - known.estimate.effect
    confidence = 1 - 2 * _LEVEL / (1 if room > 0 else tests)
    return needed(known.estimate, abs(room), confidence, anytime=anytime) or Needed(2.0, None)


def _relative(log: float) -> float | None:
    return None if abs(log) > _LARGEST_LOG else math.expm1(log)


# The verdict


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """The answer of a gate: whether ``candidate`` is within the limits of ``baseline``.

    ``score`` is 100 for ``pass``, 0 for ``fail``, and in between how near the evidence is to either.
    ``traces`` and ``processes`` are those compared of the candidate and of the baseline: with ``same_time``,
    those while both had traffic. ``once``: it holds for one look only. ``filter_string`` is the filter on
    all traces.
    """

    verdict: Outcome
    score: float
    by: str
    baseline: str
    candidate: str
    sentence: str
    criteria: tuple[Criterion, ...]
    traces: tuple[int, int]
    processes: tuple[int, int]
    same_time: bool
    once: bool
    filter_string: str | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """A question to ask of traffic, again and again unless it is asked ``once``.

    Each side needs ``min_traces`` that can be compared.
    """

    baseline: str
    candidate: str
    by: str = keys.APP_VERSION
    limits: Limits = Limits()
    min_traces: int = MIN_TRACES
    once: bool = False

    def __post_init__(self) -> None:
        if self.baseline == self.candidate:
            raise FilterError(
                f"baseline and candidate are both {named(self.baseline)!r}: a gate compares two values of"
                f" {self.by}"
            )
        for name, value in (("baseline", self.baseline), ("candidate", self.candidate)):
            if any("\ud800" <= char <= "\udfff" for char in value):
                raise FilterError(f"{name} holds a lone surrogate, which no stored text can hold")

    def judge(
        self,
        candidate: Traffic | Sequence[Count],
        baseline: Traffic | Sequence[Count],
        *,
        elapsed_ms: int = 0,
    ) -> GateVerdict:
        """The answer for the counts of both sides.

        ``elapsed_ms`` is how long the candidate has had traffic, for how much longer it would take.
        """
        evidence = gather(candidate, baseline, anytime=not self.once)
        if min(evidence.traces) < max(self.min_traces, MIN_TRACES):
            return self.too_few(evidence.traces, elapsed_ms)
        criteria = judge_limits(evidence, self.limits, anytime=not self.once)
        if not criteria:
            return self.unknown("they have too few traces of the same kind to compare like with like")
        results = {one.result for one in criteria}
        if Outcome.FAIL in results:
            verdict = Outcome.FAIL
        else:
            verdict = Outcome.INCONCLUSIVE if Outcome.INCONCLUSIVE in results else Outcome.PASS
        first, second = evidence.traces
        reasons = [one.text for one in criteria if one.result is verdict]
        if verdict is Outcome.INCONCLUSIVE:
            reasons.append(_more(criteria, elapsed_ms))
        reasons.append(
            f"{first:,} and {second:,} traces{' while both had traffic' if evidence.same_time else ''}"
        )
        return GateVerdict(
            verdict,
            round(min(one.score for one in criteria), 1),
            self.by,
            self.baseline,
            self.candidate,
            self._sentence(verdict, "; ".join(reasons)),
            criteria,
            evidence.traces,
            evidence.processes,
            evidence.same_time,
            self.once,
        )

    def unknown(self, reason: str, traces: tuple[int, int] = (0, 0)) -> GateVerdict:
        """The answer where nothing can be compared."""
        return GateVerdict(
            Outcome.INCONCLUSIVE,
            50.0,
            self.by,
            self.baseline,
            self.candidate,
            self._sentence(Outcome.INCONCLUSIVE, reason),
            (),
            traces,
            (0, 0),
            False,
            self.once,
        )

    def too_few(self, traces: tuple[int, int], elapsed_ms: int) -> GateVerdict:
        """The answer where one side has fewer traces that can be compared than are needed."""
        least = max(self.min_traces, MIN_TRACES)
        reason = f"{traces[0]:,} and {traces[1]:,} traces can be compared, but {least:,} of each are needed"
        if 0 < traces[0] < least and elapsed_ms:
            reason += f"; about {_minutes((least / traces[0] - 1) * elapsed_ms)} would bring them"
        return self.unknown(reason, traces)

    def _sentence(self, verdict: Outcome, reason: str) -> str:
        candidate, baseline = named(self.candidate), named(self.baseline)
        match verdict:
            case Outcome.PASS:
                return f"{candidate} passes: it is within the limits of {baseline}: {reason}."
            case Outcome.FAIL:
                return f"{candidate} fails: it is worse than {baseline} by more than a limit: {reason}."
        end = "" if reason.endswith("?") else "."
        asked = f"whether {candidate} is within the limits of {baseline}"
        return f"Not enough evidence yet to say {asked}: {reason}{end}"


def _more(criteria: Iterable[Criterion], elapsed_ms: int) -> str:
    """How much more would decide, if increases are as they seem."""
    lacking = [one.needed for one in criteria if one.needed is not None]
    processes = max((one.processes for one in lacking if one.processes is not None), default=0)
    times = max((one.times for one in lacking if one.times is not None), default=1.0)
    if times > _MOST_TIMES or processes > _MOST_PROCESSES:
        return "the increase is so near the limit that no amount of traffic would decide"
    more = []
    if times > 1:
        longer = _minutes((times - 1) * elapsed_ms) if elapsed_ms else ""
        more.append(longer or f"{times:,.1f} times as many traces")
    if processes:
        more.append(f"{processes:,} processes of each")
    return f"about {' and '.join(more)} would decide"


def _minutes(ms: float) -> str:
    minutes = math.ceil(ms / _MS_PER_MINUTE)
    if minutes < 120:
        return f"{counted(minutes, 'more minute')}"
    return f"{math.ceil(minutes / 60):,} more hours"


def read_gate(
    snapshot: Snapshot, selection: Selection, gate: Gate, stratify: str | None = STRATIFY
) -> GateVerdict:
    """Ask the gate of the traces of a selection.

    Raises:
        FilterError: nothing is named as the gate's ``by`` or as ``stratify``.
    """
    field = find_grouping(gate.by, snapshot)
    stratum = None if stratify is None else find_grouping(stratify, snapshot)
    values = gate.candidate, gate.baseline
    within = select_values(selection, field, values)
    groups = {
        one.value: make_group(one.value, one) for one in snapshot.groups(within, field) if one.value in values
    }
    missing = next((value for value in values if value not in groups), None)
    if missing is not None:
        others = {one.value for one in snapshot.groups(selection, field) if one.value} - {*values}
        every = selection.tree is None and selection.experiments is None
        where = "" if every else " among those selected"
        meant = did_you_mean(missing, others)
        found = gate.unknown(f"no trace has {gate.by} {named(missing)!r}{where}{meant}")
    else:
        pair = Pair(groups[gate.candidate], groups[gate.baseline])
        elapsed = pair.group.last_seen - pair.group.first_seen
        if pair.is_enough:
            counts = read_blocks(snapshot, within, field, None if stratum == field else stratum, [pair])
            found = gate.judge(counts[gate.candidate], counts[gate.baseline], elapsed_ms=elapsed)
        else:
            found = gate.too_few((pair.group.traces, pair.other.traces), elapsed)
    return replace(found, filter_string=None if selection.tree is None else format_filter(selection.tree))


def report_gate(
    snapshot: Snapshot, selection: Selection, gate: Gate, stratify: str | None = STRATIFY
) -> Report | None:
    """The comparison of both values, to be drawn; ``None`` where neither has a trace."""
    field = find_grouping(gate.by, snapshot)
    within = select_values(selection, field, (gate.candidate, gate.baseline))
    ends = snapshot.bounds(within, with_pruned=True)
    if ends is None:
        return None
    known = snapshot.bounds(select_values(selection, field, (gate.baseline,)), with_pruned=True)
    baseline = None if known is None else gate.baseline
    return make_report(snapshot, within, Window(ends[0], ends[1] + 1), gate.by, baseline, stratify=stratify)


def select_values(selection: Selection, field: Field, values: tuple[str, ...]) -> Selection:
    """The selection, limited to these values of a field, where a filter can name them."""
    if Operator.IN not in field.operators:
        return selection
    only = Compare(field, Operator.IN, values)
    return replace(
        selection, tree=only if selection.tree is None else And((*flatten([selection.tree]), only))
    )
