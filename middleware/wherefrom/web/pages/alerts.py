"""The Alerts page: the rules, whether one has an incident now, and the incidents of the last 90 days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...query.tree import format_filter
from ...stores.incidents import Incident
from ..page import Page, Reader, no_view
from ..parameters import PageQuery

_MOST_INCIDENTS: Final = 200


@dataclass(frozen=True, slots=True)
class RuleView:
    """A rule; ``condition`` is in words, ``webhook`` is without the part that is secret.

    ``open_since`` is when its incident began (ms since the epoch), ``None`` without one.
    """

    name: str
    condition: str
    where: str | None
    over_ms: int
    webhook: str
    form: str
    open_since: int | None


@dataclass(frozen=True, slots=True)
class AlertsView:
    """The rules of ``file``, ``None`` if the setting ``alerts`` is not given; the latest incident first."""

    file: str | None
    now: int
    rules: tuple[RuleView, ...]
    incidents: tuple[Incident, ...]


def view_alerts(reader: Reader, _query: PageQuery) -> AlertsView:
    """The rules and their incidents."""
    now, alerts = reader.snapshot.now_ms, reader.alerts
    if alerts is None:
        return AlertsView(None, now, (), ())
    incidents = alerts.incidents.latest(_MOST_INCIDENTS)
    begun = {one.rule: one.began for one in incidents if one.ended is None}
    rules = tuple(
        RuleView(
            rule.name,
            str(rule.check),
            None if rule.where is None else format_filter(rule.where),
            rule.over_ms,
            rule.webhook.shown,
            rule.webhook.form,
            begun.get(rule.name),
        )
        for rule in alerts.rules.rules
    )
    return AlertsView(str(alerts.rules.path), now, rules, tuple(incidents))


PAGES: Final = (
    Page(
        path="/alerts",
        title="Alerts",
        view=view_alerts,
        early=no_view,
        answer=AlertsView,
        template="alerts.html",
        summary="Alert rules, and their incidents with what was delivered.",
    ),
)
