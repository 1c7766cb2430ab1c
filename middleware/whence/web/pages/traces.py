"""The Traces page: what came in, the newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...analysis.listing import ORDERS, Listed, Wanted, list_traces
from ..page import Page, Reader
from ..parameters import Kind, Parameter, Parameters

FILTER: Final = Parameter("filter", "Which traces: a filter in the query language.")
SINCE: Final = Parameter(
    "since", "From when on: `2h ago`, `yesterday`, an ISO date or ms since the epoch; a day back by default.",
    most=100,
)  # fmt: skip
UNTIL: Final = Parameter("until", "Until when, likewise; until now by default.", most=100)
RANGE: Final = (FILTER, SINCE, UNTIL)
"""What every page about many traces takes."""

_SIZE: Final = 50


@dataclass(frozen=True, slots=True)
class TracesView:
    """A page of traces; ``next_page`` goes into ``after``, ``previous_page`` into ``before``.

    ``since`` and ``until`` are the time range that was looked at, in ms since the epoch; ``p95_ms`` is of
    the durations on this page.
    """

    traces: tuple[Listed, ...]
    next_page: str | None
    previous_page: str | None
    since: int
    until: int
    p95_ms: float | None


def view_traces(reader: Reader, query: Parameters) -> TracesView:
    """The traces that were asked for."""
    before = query.text("before")
    wanted = Wanted(
        query.text("filter"),
        query.text("since"),
        query.text("until"),
        query["order"],
        query["size"],
        before or query.text("after"),
        is_back=before is not None,
    )
    found = list_traces(wanted, experiment=reader.experiment, store=reader.store)
    window = found.window
    return TracesView(
        found.traces,
        found.next_page,
        found.previous_page,
        window.since,
        window.until,
        _p95([row.duration_ms for row in found.traces if row.duration_ms is not None]),
    )


def _p95(durations: list[float]) -> float | None:
    """The least duration that 95 % do not exceed."""
    return sorted(durations)[-(-len(durations) * 95 // 100) - 1] if durations else None


PAGES: Final = (
    Page(
        path="/traces",
        title="Traces",
        view=view_traces,
        answer=TracesView,
        template="traces.html",
        summary="The traces that pass a filter within a time range.",
        parameters=(
            *RANGE,
            Parameter("order", "Which come first.", default="newest", choices=tuple(ORDERS)),
            Parameter("size", "How many.", Kind.INTEGER, _SIZE, least=1, most=500),
            Parameter("after", "The page after this: the `next_page` of the one before."),
            Parameter("before", "The page before this: a `previous_page`."),
        ),
    ),
)
