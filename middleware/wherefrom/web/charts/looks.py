"""How things look: the classes of the stylesheet, and the attributes that stand for them without it."""

from __future__ import annotations

from typing import Final

from ...analysis import Verdict

MUTED: Final = "#57606a"

LOOKS: Final[dict[str, dict[str, str]]] = {
    "ink": {"fill": "#1f2328"},
    "muted": {"fill": MUTED, "font-size": "11"},
    "strong": {"font-weight": "600"},
    "grid": {"stroke": "#d8dee4"},
    "halo": {"stroke": "#ffffff", "stroke-width": "3", "stroke-linejoin": "round", "paint-order": "stroke"},
    "paper": {"fill": "#ffffff"},
    "worse": {"color": "#c62828"},
    "better": {"color": "#1a7f37"},
    "alike": {"color": "#31639c"},
    "few": {"color": "#8a6100"},
    "baseline": {"color": MUTED},
    "series-1": {"color": MUTED, "stroke-dasharray": "5 3"},
    "series-2": {"color": "#0b66c2", "stroke-dasharray": "none"},
    "series-3": {"color": "#b5500b", "stroke-dasharray": "12 3"},
    "series-4": {"color": "#157a5a", "stroke-dasharray": "2 3"},
    "series-5": {"color": "#a3277c", "stroke-dasharray": "9 3 2 3"},
    "series-6": {"color": "#6b5b00", "stroke-dasharray": "14 3 2 3 2 3"},
    "fill": {"fill": "currentColor", "stroke": "none"},
    "line": {"stroke": "currentColor", "stroke-width": "1.5", "fill": "none"},
    "thread": {"stroke": "currentColor", "stroke-dasharray": "2 3", "fill": "none"},
    "reach": {"stroke": "currentColor", "stroke-width": "1.5", "stroke-opacity": "0.6", "fill": "none"},
    "ring": {"stroke": "currentColor", "stroke-width": "1.5", "fill": "#ffffff"},
    "area": {"fill": "currentColor", "fill-opacity": "0.1", "stroke": "none"},
    "lasting": {"stroke": "currentColor", "stroke-width": "5", "stroke-linecap": "round", "fill": "none"},
    "requests": {"fill": "#9fb3c8"},
    "errors": {"fill": "#c62828"},
    "deployment": {"stroke": "#6639ba", "stroke-dasharray": "4 3"},
    "flag": {"fill": "#6639ba", "font-size": "11"},
    "touch": {"fill": "transparent"},
}
"""A row a class. ``color`` is what ``currentColor`` means in it."""

SERIES: Final = tuple(f"series-{number}" for number in range(1, 7))
"""Looks of values that are drawn over each other: no two have the same dash."""

TONES: Final[dict[Verdict | None, str]] = {
    Verdict.WORSE: "worse",
    Verdict.BETTER: "better",
    Verdict.NO_DIFFERENCE: "alike",
    Verdict.TOO_FEW: "few",
    None: "baseline",
}
SIGNS: Final[dict[Verdict | None, str]] = {
    Verdict.WORSE: "▲",
    Verdict.BETTER: "▼",
    Verdict.NO_DIFFERENCE: "=",
    Verdict.TOO_FEW: "?",
    None: "●",
}
"""What tells verdicts apart where there are no colours."""
