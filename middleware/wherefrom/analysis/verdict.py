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

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from . import wording
from .pairs import Difference, Pair, Tests, compare_durations, run_tests
from .results import Verdict

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
        return Judgement(Verdict.TOO_FEW, wording.too_few(pair), tests)
    seen = [test for test in tests if _direction(test, alpha)]
    towards, remark = _balance(seen), ""
    if towards > 0 and _is_by_fewer_errors(pair, tests, alpha):
        towards, remark = -1, "; those that succeeded are not slower"
    reason = wording.reason(pair, tests, seen, towards)
    return Judgement(_VERDICTS[towards], reason + remark, tests)


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
