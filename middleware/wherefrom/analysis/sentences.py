"""Verdicts in whole sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .results import Comparison, Row, Verdict

_WORTH_TELLING: Final = (Verdict.WORSE, Verdict.BETTER)
_ORDER: Final = (*_WORTH_TELLING, Verdict.NO_DIFFERENCE, Verdict.TOO_FEW)
_MOST_TOLD: Final = 4
_MOST_NAMED: Final = 12
_LONGEST_NAME: Final = 80
_TOGETHER: Final = {
    Verdict.WORSE: "Worse too:",
    Verdict.BETTER: "Better too:",
    Verdict.NO_DIFFERENCE: "No difference is seen of",
    Verdict.TOO_FEW: "Too few traces to judge",
}


def sentence(row: Row) -> str:
    """The verdict on one value and what it rests on; empty where nothing was compared with it."""
    value, against = _named(row.value), _named(row.against or "")
    match row.verdict:
        case None:
            return ""
        case Verdict.NO_DIFFERENCE:
            return f"Between {value} and {against} there is no difference seen: {row.reason}."
        case Verdict.TOO_FEW:
            return f"Too few traces to judge {value} against {against}: {row.reason}."
    return f"{value} is {row.verdict} than {against}: {row.reason}."


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


def summary(comparison: Comparison) -> list[Said]:
    """The verdicts in as few sentences as tell all: what is worse first, and those alike together."""
    said: list[Said] = []
    for verdict in Verdict:
        rows = [row for row in reversed(comparison.rows) if row.verdict is verdict]
        if verdict in _WORTH_TELLING or len(rows) == 1:
            told, others = rows[:_MOST_TOLD], rows[_MOST_TOLD:]
            said += [Said(verdict, sentence(row)) for row in told]
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
