"""Deployments: version, commit, region and id, their first and last trace, error rate and latency.

The metadata of a process is in its source, and sources are few. Traces are counted by the index over
source, time, state and bucket of duration alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .. import keys
from .._records import Tabular
from ..query.fields import METADATA, Operator, with_key
from ..query.tree import And, Compare, Node, format_filter
from ..stores import Selection, Snapshot
from ..stores.base import SourceRow
from .scope import Window
from .statistics import Interval, Sample, proportion_confint, quantile

MOST_SOURCES: Final = 2_000  # a deployment with a new source for each process must not cost seconds
MOST_DEPLOYMENTS: Final = 200

_KEYS: Final = (
    keys.APP_VERSION,
    keys.DEPLOYMENT_ID,
    keys.REGION,
    keys.ENVIRONMENT,
    keys.GIT_COMMIT,
    keys.GIT_DIRTY,
    keys.GIT_BRANCH,
    keys.GIT_REPO_URL,
)
_IDENTIFYING: Final = 6  # the first keys; the others follow from the commit
_ABSENT: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment; times in ms since the epoch, ``None`` for metadata that its processes lack.

    ``first_seen`` and ``last_seen`` cover all its traces, ``traces`` and ``errors`` those within the time
    range. ``sources`` is the number of its sources: processes that differ in other metadata. ``filter``
    selects its traces.
    """

    version: str | None
    deployment_id: str | None
    region: str | None
    environment: str | None
    commit: str | None
    branch: str | None
    repository: str | None
    is_dirty: bool
    first_seen: int
    last_seen: int
    traces: int
    errors: int
    error_rate: float
    error_rate_interval: Interval
    p95_ms: float | None
    sources: int
    filter: str

    @property
    def name(self) -> str:
        """Its id, and its version or commit, if they are known."""
        known = [part for part in (self.deployment_id, self.version) if part and part != _ABSENT]
        return " · ".join(known) or (self.commit or _ABSENT)[:12]


@dataclass(frozen=True, slots=True)
class Deployments(Tabular):
    """The deployments with traces in a time range, the latest first; ``others`` are not listed."""

    found: tuple[Deployment, ...]
    others: int
    window: Window

    def _rows(self) -> Iterable[object]:
        return self.found


def read_deployments(snapshot: Snapshot, selection: Selection, window: Window) -> Deployments:
    """The deployments that sent traces of a selection within a window."""
    within = window.limit(selection)
    groups: dict[Pairs, list[SourceRow]] = {}
    for row in snapshot.sources(within, MOST_SOURCES):
        groups.setdefault(tuple(map(row.metadata.get, _KEYS)), []).append(row)
    ordered = sorted(groups, key=lambda pairs: (-max(row.last_seen for row in groups[pairs]), str(pairs)))
    shown = ordered[:MOST_DEPLOYMENTS]
    found = tuple(_deployment(pairs, groups[pairs]) for pairs in shown)
    return Deployments(found, len(ordered) - len(shown), window)


Pairs = tuple[str | None, ...]
"""What distinguishes deployments: the values of ``_KEYS``."""


def _deployment(pairs: Pairs, sources: Sequence[SourceRow]) -> Deployment:
    version, deployment_id, region, environment, commit, dirty, branch, repository = pairs
    total, errors = sum(row.traces for row in sources), sum(row.errors for row in sources)
    durations = sum((Sample(row.durations) for row in sources), Sample())
    return Deployment(
        version=version,
        deployment_id=deployment_id,
        region=region,
        environment=environment,
        commit=commit,
        branch=branch,
        repository=repository,
        is_dirty=dirty == "true",
        first_seen=min(row.first_seen for row in sources),
        last_seen=max(row.last_seen for row in sources),
        traces=total,
        errors=errors,
        error_rate=errors / total,
        error_rate_interval=proportion_confint(errors, total),
        p95_ms=quantile(durations, 0.95) / 1000 if durations else None,
        sources=len(sources),
        filter=_filter(pairs),
    )


def _filter(pairs: Pairs) -> str:
    """The filter that distinguishes a deployment from others, as far as its metadata is known."""
    parts: list[Node] = [
        Compare(with_key(METADATA, key), Operator.EQ, value)
        for key, value in zip(_KEYS[:_IDENTIFYING], pairs, strict=False)
        if value is not None
    ]
    return format_filter(And(tuple(parts))) if parts else ""
