"""The Compare page: one value against another, with intervals, a verdict and a picture to take along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ... import keys
from ...analysis.api import report
from ...analysis.comparison import Report
from ..charts import draw
from ..charts.picture import to_png
from ..page import Download, File, Page, Reader
from ..parameters import RANGE, Parameter, Parameters, range_context
from ..plots import events

_FIELDS: Final = ("name", "status", "user", "session_id")
_USUAL: Final = (keys.APP_VERSION, keys.DEPLOYMENT_ID, keys.REGION, keys.ENVIRONMENT, keys.GIT_COMMIT)


@dataclass(frozen=True, slots=True)
class CompareForm:
    """What can be asked: everything that traces can be compared by."""

    choices: tuple[str, ...]


def view_form(reader: Reader, _query: Parameters) -> CompareForm:
    """What is quick to know."""
    found = {*reader.client.list_keys(), *(f"tag.{key}" for key in reader.client.list_keys("tag"))}
    others = sorted(found - set(_USUAL))
    return CompareForm((*_USUAL, *_FIELDS, *others))


def view_report(reader: Reader, query: Parameters) -> Report:
    """The comparison that was asked for."""
    return report(
        query["by"],
        query.text("filter"),
        baseline=query.text("baseline"),
        since=query.text("since"),
        until=query.text("until"),
        experiment=reader.experiment,
        store=reader.store,
    )


def make_svg(reader: Reader, query: Parameters) -> File:
    """The picture."""
    found = view_report(reader, query)
    window = found.since, found.until
    picture = draw(found.comparison, found.timeline, events(found.deployments), window)
    return File(f"compare-{found.by}", picture)


def make_png(reader: Reader, query: Parameters) -> File:
    """The picture, as pixels."""
    drawn = make_svg(reader, query)
    return File(drawn.name, to_png(str(drawn.content)))


PAGES: Final = (
    Page(
        path="/compare",
        title="Compare",
        view=view_report,
        early=view_form,
        answer=Report,
        context=range_context,
        template="compare.html",
        summary="Error rates and latencies by a value, with intervals, and a verdict on each value.",
        parameters=(
            Parameter("by", "A field, a metadata key or a tag.", default=keys.APP_VERSION, most=300),
            Parameter("baseline", "The value the others are compared with; the one first seen by default."),
            *RANGE,
        ),
        downloads=(
            Download("svg", "image/svg+xml", make_svg, "The comparison as one picture."),
            Download("png", "image/png", make_png, "The comparison as one picture, in pixels."),
        ),
    ),
)
