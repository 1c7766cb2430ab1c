"""The Errors page: failed traces in groups."""

from __future__ import annotations

from typing import Final

from ...analysis.error_groups import ErrorGroups, read_error_groups
from ...analysis.scope import find_window
from ..page import Page, Reader, no_view
from ..parameters import RangeQuery


def view_errors(reader: Reader, query: RangeQuery) -> ErrorGroups:
    """The errors of a time range."""
    window = find_window(reader.snapshot, query.since, query.until)
    return read_error_groups(reader.snapshot, reader.selection, window)


PAGES: Final = (
    Page(
        path="/errors",
        title="Errors",
        view=view_errors,
        early=no_view,
        answer=ErrorGroups,
        template="errors.html",
        summary="Failed traces in groups: by type, by message without its values, and by place.",
        query=RangeQuery,
    ),
)
