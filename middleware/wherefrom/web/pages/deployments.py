"""The Deployments page: which deployments sent traces, when, and their error rates and latencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...analysis import Deployment
from ...analysis.deployments import read_deployments
from ...analysis.scope import find_window
from ..links import commit_url
from ..page import Page, Reader, no_view
from ..parameters import TimeQuery


@dataclass(frozen=True, slots=True)
class Deployed:
    """One deployment; ``commit_url`` is the page of its commit on its host, ``None`` where it is unknown."""

    deployment: Deployment
    name: str
    commit_url: str | None


@dataclass(frozen=True, slots=True)
class DeploymentsView:
    """Deployments with traces from ``since`` to before ``until`` (ms since the epoch), the latest first.

    ``others`` is the number of deployments beyond these.
    """

    deployments: tuple[Deployed, ...]
    others: int
    since: int
    until: int


def view_deployments(reader: Reader, query: TimeQuery) -> DeploymentsView:
    """The deployments of a time range."""
    window = find_window(reader.snapshot, query.since, query.until)
    found = read_deployments(reader.snapshot, reader.selection, window)
    shown = tuple(Deployed(one, one.name, commit_url(one.repository, one.commit)) for one in found.found)
    return DeploymentsView(shown, found.others, found.window.since, found.window.until)


PAGES: Final = (
    Page(
        path="/deployments",
        title="Deployments",
        view=view_deployments,
        early=no_view,
        answer=DeploymentsView,
        template="deployments.html",
        summary="Deployments that sent traces in a time range, with counts, error rates and latencies.",
        query=TimeQuery,
    ),
)
