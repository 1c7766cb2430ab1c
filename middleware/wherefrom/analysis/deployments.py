"""Deployments: which version, commit, region and deployment sent traces, from when to when, and how it fared.

What a process says of itself is in its source row, of which there are few. Traces are counted by the index
over source, time, state and duration alone; only the newest durations of each are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, func, select

from .. import keys
from ..model import TraceState
from ..query import format_filter
from ..query.fields import METADATA, Operator, with_key
from ..query.tree import And, Compare, Node
from ..stores import Store
from ..stores.sqlite.expressions import Condition
from ..stores.sqlite.schema import sources, traces
from .groups import collect
from .scope import Scope, Window, find_window, scope
from .statistics import Interval, Sample, quantile, wilson

SAMPLED: Final = 2_000
MOST_SOURCES: Final = 2_000
MOST_DEPLOYMENTS: Final = 200
_BATCH: Final = 500

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
_IDENTIFYING: Final = 6
_ABSENT: Final = "unknown"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment; times in ms since the epoch, ``None`` for what its processes do not say.

    ``first_seen`` and ``last_seen`` are of all its traces, ``traces`` and ``errors`` of those within the
    window; ``p95_ms`` is of the newest of these, at most 2,000 of each source. ``sources`` is how many
    source rows it has: processes that differ in other metadata. ``filter`` is the filter for its traces.
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
        """What to call it: its id and its version, or the commit, as far as they are known."""
        deployed = self.deployment_id if self.deployment_id != _ABSENT else None
        told = [part for part in (deployed, self.version) if part]
        return " · ".join(told) or (self.commit or _ABSENT)[:12]


@dataclass(frozen=True, slots=True)
class Deployments:
    """Those with traces in the window, the latest to send one first; ``others`` were too many to list."""

    found: tuple[Deployment, ...]
    others: int
    window: Window


def deployments(
    since: str | None = None,
    until: str | None = None,
    *,
    experiment: str | None = None,
    store: Store | str | None = None,
) -> Deployments:
    """The deployments that sent traces within a window, which is a day by default.

    Raises:
        FilterError: a moment cannot be read, or the window is empty.
    """
    with scope(store, None, experiment) as inside:
        window = find_window(inside.snapshot, since, until)
        groups = _grouped(inside)
        counts = {} if inside.is_empty else _count(inside, window, groups)
        last = {id_: figures.last_seen for id_, figures in counts.items()}
        active = {
            pairs: own for pairs, ids in groups.items() if (own := [id_ for id_ in ids if id_ in counts])
        }
        ordered = sorted(active, key=lambda pairs: (-max(last[id_] for id_ in active[pairs]), str(pairs)))
        shown = ordered[:MOST_DEPLOYMENTS]
        found = tuple(_deployment(inside, window, pairs, active[pairs], counts) for pairs in shown)
    return Deployments(found, len(ordered) - len(shown), window)


Pairs = tuple[str | None, ...]
"""What tells one deployment from another: the values of ``_KEYS``."""


@dataclass(frozen=True, slots=True)
class _Counts:
    traces: int
    errors: int
    first_seen: int
    last_seen: int


def _grouped(inside: Scope) -> dict[Pairs, list[int]]:
    """The sources of each deployment; of very many, those that came last."""
    groups: dict[Pairs, list[int]] = {}
    query = select(sources.c.id, sources.c.metadata).order_by(sources.c.id.desc()).limit(MOST_SOURCES)
    for id_, metadata in inside.connection.execute(query):
        groups.setdefault(tuple(map(metadata.get, _KEYS)), []).append(id_)
    return groups


def _count(inside: Scope, window: Window, groups: Mapping[Pairs, Sequence[int]]) -> dict[int, _Counts]:
    counts: dict[int, _Counts] = {}
    for batch in _batches([id_ for ids in groups.values() for id_ in ids]):
        rows = inside.connection.execute(_counting(inside, window, batch)).all()
        ends = _ends(inside, [row[0] for row in rows])
        counts.update((id_, _Counts(count, errors, *ends[id_])) for id_, count, errors in rows)
    return counts


def _counting(inside: Scope, window: Window, ids: Sequence[int]) -> Select[Any]:
    failed = func.count().filter(traces.c.state == TraceState.ERROR.value)
    query = select(traces.c.source_id, func.count(), failed)
    return query.where(traces.c.source_id.in_(ids), *_within(inside, window)).group_by(traces.c.source_id)


def _ends(inside: Scope, ids: Sequence[int]) -> dict[int, tuple[int, int]]:
    """When the first and the last trace of each source came in: two looks into the index."""
    time_ = traces.c.request_time
    ends = [
        select(end(time_)).where(traces.c.source_id == sources.c.id).scalar_subquery()
        for end in (func.min, func.max)
    ]
    rows = inside.connection.execute(select(sources.c.id, *ends).where(sources.c.id.in_(ids)))
    return {id_: (first, last) for id_, first, last in rows}


def _deployment(
    inside: Scope, window: Window, pairs: Pairs, ids: Sequence[int], counts: Mapping[int, _Counts]
) -> Deployment:
    version, deployment_id, region, environment, commit, dirty, branch, repository = pairs
    own = [counts[id_] for id_ in ids]
    total, errors = sum(one.traces for one in own), sum(one.errors for one in own)
    durations = Sample(duration for id_ in ids for duration in _newest_durations(inside, window, id_))
    return Deployment(
        version=version,
        deployment_id=deployment_id,
        region=region,
        environment=environment,
        commit=commit,
        branch=branch,
        repository=repository,
        is_dirty=dirty == "true",
        first_seen=min(one.first_seen for one in own),
        last_seen=max(one.last_seen for one in own),
        traces=total,
        errors=errors,
        error_rate=errors / total,
        error_rate_interval=wilson(errors, total),
        p95_ms=quantile(durations, 0.95) / 1000 if durations else None,
        sources=len(ids),
        filter=_filter(pairs),
    )


def _newest_durations(inside: Scope, window: Window, id_: int) -> list[int]:
    own = traces.c.source_id == id_
    newest = (
        select(traces.c.duration_us)
        .where(own, traces.c.duration_us.is_not(None), *_within(inside, window))
        .order_by(traces.c.request_time.desc())
        .limit(SAMPLED)
        .subquery()
    )
    return inside.connection.scalar(select(collect(newest.c.duration_us))) or []


def _within(inside: Scope, window: Window) -> tuple[Condition, ...]:
    time_ = traces.c.request_time
    return (time_ >= window.since, time_ < window.until, *inside.conditions)


def _filter(pairs: Pairs) -> str:
    """What tells this deployment from others, as far as it is known."""
    parts: list[Node] = [
        Compare(with_key(METADATA, key), Operator.EQ, value)
        for key, value in zip(_KEYS[:_IDENTIFYING], pairs, strict=False)
        if value is not None
    ]
    return format_filter(And(tuple(parts))) if parts else ""


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    return (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))
