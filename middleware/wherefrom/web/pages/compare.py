"""The Compare page: error rates and latencies by value, with confidence intervals, verdicts and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ... import keys
from ...analysis.comparison import Report, make_report
from ...analysis.model_calls import CallTotals, read_totals
from ...analysis.scope import find_window
from ..charts import draw
from ..charts.picture import to_png
from ..page import Download, File, Page, Reader
from ..parameters import CompareQuery
from ..plots import events

_FIELDS: Final = ("name", "status", "user", "session_id")
_USUAL: Final = (keys.APP_VERSION, keys.DEPLOYMENT_ID, keys.REGION, keys.ENVIRONMENT, keys.GIT_COMMIT)


@dataclass(frozen=True, slots=True)
class CompareForm:
    """What the form offers: the fields, metadata keys, tags and feedback that traces can be compared by."""

    choices: tuple[str, ...]


def view_form(reader: Reader, _query: CompareQuery) -> CompareForm:
    """The choices of the form, which are fast to read."""
    snapshot = reader.snapshot
    found = {*snapshot.keys("metadata"), *(f"tag.{key}" for key in snapshot.keys("tag"))}
    found |= {f"feedback.{name}" for name in snapshot.keys("feedback")}
    others = sorted(found - set(_USUAL))
    return CompareForm((*_USUAL, *_FIELDS, *others))


def view_report(reader: Reader, query: CompareQuery) -> Report:
    """The comparison."""
    window = find_window(reader.snapshot, query.since, query.until)
    return make_report(
        reader.snapshot, reader.selection, window, query.by, query.baseline, sequential=query.sequential
    )


def view_calls(reader: Reader, query: CompareQuery) -> CallTotals:
    """Tokens and cost by the same values."""
    window = find_window(reader.snapshot, query.since, query.until)
    return read_totals(reader.snapshot, window.limit(reader.selection), query.by)


def make_svg(reader: Reader, query: CompareQuery) -> File:
    """The comparison as an SVG file."""
    found = view_report(reader, query)
    window = found.since, found.until
    picture = draw(found.comparison, found.timeline, events(found.deployments), window)
    return File(f"compare-{found.by}", picture)


def make_png(reader: Reader, query: CompareQuery) -> File:
    """The comparison as a PNG file."""
    drawn = make_svg(reader, query)
    return File(drawn.name, to_png(str(drawn.content)))


PAGES: Final = (
    Page(
        path="/compare",
        title="Compare",
        view=view_report,
        early=view_form,
        answer=Report,
        template="compare.html",
        summary="Error rates and latencies by value, with confidence intervals and a verdict for each value.",
        query=CompareQuery,
        parts={"calls": view_calls},
        downloads=(
            Download("svg", "image/svg+xml", make_svg, "The comparison as an SVG picture."),
            Download("png", "image/png", make_png, "The comparison as a PNG picture."),
        ),
    ),
    Page(
        path="/calls",
        view=view_calls,
        answer=CallTotals,
        summary="Tokens and cost of model calls by value, the most expensive first.",
        query=CompareQuery,
    ),
)
