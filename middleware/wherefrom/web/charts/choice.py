"""Which values are drawn over each other, where there are more than eyes can tell apart."""

from __future__ import annotations

from typing import Final

from ...analysis import Comparison, Row, Verdict

MOST: Final = 6
_RANK: Final = {Verdict.WORSE: 0, Verdict.BETTER: 1, Verdict.NO_DIFFERENCE: 2, Verdict.TOO_FEW: 3, None: 2}


def choose_rows(comparison: Comparison, most: int = MOST) -> list[Row]:
    """The baseline, and of the others those that differ and the newest, in their order."""
    rows = comparison.rows
    ranked = sorted(
        range(len(rows)),
        key=lambda place: (rows[place].value != comparison.baseline, _RANK[rows[place].verdict], -place),
    )
    return [rows[place] for place in sorted(ranked[:most])]


def timed_rows(comparison: Comparison) -> list[Row]:
    """Those of them with durations enough to be drawn."""
    chosen = choose_rows(comparison)
    return [row for row in chosen if any(row.histogram) and row.verdict is not Verdict.TOO_FEW]
