"""The verdict on one value against another.

Errors are compared by Fisher's exact test; durations by Mann and Whitney's test, which asks whether traces
tend to take longer, and the slowest of them by a quantile test, which asks whether more are slow. All the
p-values of a comparison, three for each pair of values, are corrected together by Holm's method.

- ``too few traces``: one of the two has fewer than 30; nothing is tested. With 30 of each, an error rate of
  45 % against 5 %, or durations longer by a standard deviation, are found nine times in ten.
- ``worse``: the error rate is higher, or traces take longer, or more of them are slow.
- ``better``: the contrary of one of these, and none of them.
- ``no difference seen``: nothing of either kind.

A difference is seen when its corrected p-value is below 1 - confidence. One in latency also has to matter,
as among a million traces any is certain: a quantile has to move by 5 % or more. Where errors become fewer
and traces slower, the traces that succeeded decide, since failing fast is no merit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from .pairs import MIN_CHANGE, MIN_TRACES, Difference, Pair, Tests, compare_durations, run_tests
from .results import Comparison, ErrorDifference, LatencyDifference, Row, TailDifference, Verdict
from .statistics import quantile

_VERDICTS: Final = {1: Verdict.WORSE, -1: Verdict.BETTER, 0: Verdict.NO_DIFFERENCE}


class Judgement(NamedTuple):
    """A verdict, the reason for it, and the tests that it rests on."""

    verdict: Verdict
    reason: str
    tests: Tests


def judge(pairs: Sequence[Pair], confidence: float) -> list[Judgement]:
    """The verdicts on all pairs of one comparison."""
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
    """What is worse is never made good by what is better."""
    directions = {test.direction for test in seen}
    return 1 if 1 in directions else min(directions, default=0)


def _is_by_fewer_errors(pair: Pair, tests: Tests, alpha: float) -> bool:
    """Whether traces are slower only because fewer of them fail, which was fast."""
    if tests.errors is None or _direction(tests.errors, alpha) >= 0:
        return False
    succeeded = compare_durations(pair.group.succeeded, pair.other.succeeded) or ()
    return all(_direction(test, alpha) <= 0 for test in succeeded)


_DIRECTIONS: Final = {1: "slower: ", -1: "faster: ", 0: ""}
_FEWER_OR_MORE: Final = {1: "more", -1: "fewer"}
_SMALLEST_P: Final = 0.0001
_MAX_DIGITS: Final = 5


def too_few(pair: Pair) -> str:
    """Why nothing was tested."""
    return f"{pair.group.traces:,} and {pair.other.traces:,} traces, but {MIN_TRACES} of each are needed"


def reason(pair: Pair, tests: Tests, seen: Sequence[Difference], towards: int) -> str:
    """What was seen, in the verdict's own direction before the contrary; where nothing was, all tests.

    A direction is 1 for the worse, -1 for the better.
    """
    if not seen:
        texts = [_text(pair, test, 0) for test in tests if not isinstance(test, TailDifference)]
    else:
        told = [test for test in seen if not _is_told(test, seen)]
        told.sort(key=lambda test: test.direction != towards)
        contrary = [test.direction != towards for test in told]
        texts = [
            ("but " if against else "") + _text(pair, test, test.direction)
            for test, against in zip(told, contrary, strict=True)
        ]
    return f"{'; '.join(texts)}, {pair.group.traces:,} and {pair.other.traces:,} traces"


def _is_told(test: Difference, seen: Sequence[Difference]) -> bool:
    """Whether the p95 that latency is described with says it already."""
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
    """Both values, with as many digits as it takes to tell them apart."""
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


_WORTH_TELLING: Final = (Verdict.WORSE, Verdict.BETTER)
_ORDER: Final = (*_WORTH_TELLING, Verdict.NO_DIFFERENCE, Verdict.TOO_FEW)
_MOST_TOLD: Final = 4
_MOST_NAMED: Final = 12
_LONGEST_NAME: Final = 80
_TOGETHER: Final = {
    Verdict.WORSE: "Also worse:",
    Verdict.BETTER: "Also better:",
    Verdict.NO_DIFFERENCE: "No difference seen for",
    Verdict.TOO_FEW: "Too few traces to judge",
}


def sentence(row: Row, first_seen: str = "") -> str:
    """The verdict on one value and its reason; empty where there is none.

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
    """All verdicts in one line: what is worse, else what is better, else that nothing is."""
    judged = [row for row in comparison.rows if row.verdict is not None]
    if not judged:
        return "nothing to compare with" if comparison.rows else "no traces"
    for verdict in _WORTH_TELLING:
        found = [row for row in judged if row.verdict is verdict]
        if len(found) == 1:
            return f"{_named(found[0].value)} is {verdict} than {_named(found[0].against or '')}"
        if found:
            return f"{len(found)} of {len(judged)} are {verdict}"
    if any(row.verdict is Verdict.NO_DIFFERENCE for row in judged):
        return str(Verdict.NO_DIFFERENCE)
    return str(Verdict.TOO_FEW)


@dataclass(frozen=True, slots=True)
class Said:
    """One sentence, and the verdict that it tells."""

    verdict: Verdict
    text: str


def summary(comparison: Comparison, moment: Callable[[int], str] | None = None) -> list[Said]:
    """The verdicts in few sentences: what is worse first, equal verdicts together.

    ``moment`` writes a time in ms, when something that is worse was first seen.
    """
    said: list[Said] = []
    for verdict in Verdict:
        rows = [row for row in reversed(comparison.rows) if row.verdict is verdict]
        if verdict in _WORTH_TELLING or len(rows) == 1:
            told, others = rows[:_MOST_TOLD], rows[_MOST_TOLD:]
            said += [Said(verdict, sentence(row, moment(row.first_seen) if moment else "")) for row in told]
            said += [Said(verdict, _together(verdict, others))] if others else []
        elif rows:
            said.append(Said(verdict, _together(verdict, rows)))
    return sorted(said, key=lambda one: _ORDER.index(one.verdict))


def _together(verdict: Verdict, rows: Sequence[Row]) -> str:
    names = [_named(row.value) for row in rows[:_MOST_NAMED]]
    if len(rows) > _MOST_NAMED:
        names.append(f"{len(rows) - _MOST_NAMED} more")
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{_TOGETHER[verdict]} {listed}."


def _named(value: str) -> str:
    """A value as a sentence can hold it."""
    return value if len(value) <= _LONGEST_NAME else f"{value[: _LONGEST_NAME - 1]}…"
