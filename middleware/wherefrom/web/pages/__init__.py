"""The pages, in the order of the navigation."""

from __future__ import annotations

from typing import Final

from ..page import Action, Page
from . import (
    alerts,
    compare,
    dataset,
    deployments,
    errors,
    feedback,
    sessions,
    status,
    trace,
    trace_pair,
    traces,
    verdict,
)

HOME: Final = "/traces"
PAGES: Final[tuple[Page, ...]] = (
    *traces.PAGES,
    *trace.PAGES,
    *dataset.PAGES,
    *errors.PAGES,
    *sessions.PAGES,
    *compare.PAGES,
    *trace_pair.PAGES,
    *verdict.PAGES,
    *deployments.PAGES,
    *alerts.PAGES,
    *status.PAGES,
)
ACTIONS: Final[tuple[Action, ...]] = (*trace.ACTIONS, *feedback.ACTIONS)
