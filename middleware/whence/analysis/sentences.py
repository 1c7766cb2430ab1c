"""Verdicts in whole sentences."""

from __future__ import annotations

from typing import Final

from .results import Comparison, Row, Verdict

_WORTH_TELLING: Final = (Verdict.WORSE, Verdict.BETTER)


def sentence(row: Row) -> str:
    """The verdict on one value and what it rests on; empty where nothing was compared with it."""
    match row.verdict:
        case None:
            return ""
        case Verdict.NO_DIFFERENCE:
            return f"Between {row.value} and {row.against} there is no difference seen: {row.reason}."
        case Verdict.TOO_FEW:
            return f"Too few traces to judge {row.value} against {row.against}: {row.reason}."
    return f"{row.value} is {row.verdict} than {row.against}: {row.reason}."


def headline(comparison: Comparison) -> str:
    """All verdicts in one line: what is worse, else what is better, else that nothing is."""
    judged = [row for row in comparison.rows if row.verdict is not None]
    if not judged:
        return "nothing to compare with" if comparison.rows else "no traces"
    for verdict in _WORTH_TELLING:
        found = [row for row in judged if row.verdict is verdict]
        if len(found) == 1:
            return f"{found[0].value} is {verdict} than {found[0].against}"
        if found:
            return f"{len(found)} of {len(judged)} are {verdict}"
    if any(row.verdict is Verdict.NO_DIFFERENCE for row in judged):
        return str(Verdict.NO_DIFFERENCE)
    return str(Verdict.TOO_FEW)


def ranked(comparison: Comparison) -> list[Row]:
    """The rows that were judged, what is worse first, then what is better, the newest of each first."""
    order = [*_WORTH_TELLING, Verdict.NO_DIFFERENCE, Verdict.TOO_FEW]
    judged = [row for row in reversed(comparison.rows) if row.verdict is not None]
    return sorted(judged, key=lambda row: order.index(row.verdict or Verdict.TOO_FEW))
