"""The range of time that a page is about: what can be asked, and what is offered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .parameters import Parameter, Parameters

FILTER: Final = Parameter("filter", "Which traces: a filter in the query language; all by default.")
SINCE: Final = Parameter(
    "since",
    "From when on: `2h ago`, `yesterday`, an ISO date or ms since 1970; a day before `until` by default.",
    most=100,
)
UNTIL: Final = Parameter("until", "Until when, likewise; until now by default.", most=100)
RANGE: Final = (FILTER, SINCE, UNTIL)
"""What every page about many traces takes."""

_OFFERED: Final = {
    "15m ago": "15 min",
    "1h ago": "1 hour",
    "6h ago": "6 hours",
    "24h ago": "24 hours",
    "7d ago": "7 days",
    "30d ago": "30 days",
    "0": "All",
}


@dataclass(frozen=True, slots=True)
class Offer:
    """One range to choose: what ``since`` would be, and whether it is so now."""

    since: str
    title: str
    is_chosen: bool


def range_context(query: Parameters) -> dict[str, list[Offer]]:
    """``ranges`` for the template of a page."""
    return {"ranges": offered_ranges(query)}


def offered_ranges(query: Parameters) -> list[Offer]:
    """The ranges that a page offers, all up to now."""
    since = query.text("since") or "24h ago"
    is_open = query.text("until") is None
    return [Offer(one, title, is_open and one == since) for one, title in _OFFERED.items()]
