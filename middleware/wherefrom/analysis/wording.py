"""The reason for a verdict, in words and with the figures that it rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from .intervals import quantile
from .pairs import MIN_CHANGE, MIN_TRACES, Difference, Pair, Tests
from .results import ErrorDifference, LatencyDifference, TailDifference

_DIRECTIONS: Final = {1: "slower: ", -1: "faster: ", 0: ""}
_FEWER_OR_MORE: Final = {1: "more", -1: "fewer"}
_SMALLEST_P: Final = 0.0001
_MAX_DIGITS: Final = 5


def too_few(pair: Pair) -> str:
    """Why nothing was tested."""
    return f"{pair.group.traces:,} and {pair.other.traces:,} traces: it takes {MIN_TRACES} of each"


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
