"""The Deployments page: what was running, from when to when, and how it fared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...analysis import Deployment, deployments
from ..links import commit_url
from ..page import Page, Reader
from ..parameters import SINCE, UNTIL, Parameters, range_context


@dataclass(frozen=True, slots=True)
class Deployed:
    """One deployment, and the page of its commit where its host has one."""

    deployment: Deployment
    name: str
    commit_url: str | None


@dataclass(frozen=True, slots=True)
class DeploymentsView:
    """Deployments with traces from ``since`` to before ``until`` (ms since the epoch), the latest first.

    ``others`` is how many more there are.
    """

    deployments: tuple[Deployed, ...]
    others: int
    since: int
    until: int


def view_deployments(reader: Reader, query: Parameters) -> DeploymentsView:
    """The deployments of a time range."""
    since, until = query.text("since"), query.text("until")
    found = deployments(since, until, experiment=reader.experiment, store=reader.store)
    shown = tuple(Deployed(one, one.name, commit_url(one.repository, one.commit)) for one in found.found)
    return DeploymentsView(shown, found.others, found.window.since, found.window.until)


def _early(_reader: Reader, _query: Parameters) -> None:
    """Nothing: the form is all that is known at once."""


PAGES: Final = (
    Page(
        path="/deployments",
        title="Deployments",
        view=view_deployments,
        early=_early,
        answer=DeploymentsView,
        context=range_context,
        template="deployments.html",
        summary="Which deployment sent traces from when to when, how many, and how they fared.",
        parameters=(SINCE, UNTIL),
    ),
)
