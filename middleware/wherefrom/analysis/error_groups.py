"""Errors in groups: failed traces with the same type, place and, but for its values, message."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from .. import keys
from .._records import Tabular, http_status
from ..model import Trace, TraceState
from ..query import format_filter
from ..query.fields import Operator, find_field
from ..query.order import NEWEST_FIRST
from ..query.tree import And, Compare, Node
from ..stores import Selection, Snapshot
from .description import Failure, failures_of
from .scope import Window
from .stack_traces import place_of

MOST_READ: Final = 1_000  # traces with their spans: read within the deadline of a page
_MOST_VERSIONS: Final = 20
_LONGEST: Final = 300  # characters of a message
_FAILED: Final = Compare(find_field(None, "status"), Operator.EQ, TraceState.ERROR.value)
_SPAN_FAILED: Final = Compare(find_field("span", "status"), Operator.EQ, "ERROR")
_MESSAGE: Final = find_field("span", "message")
_ERROR_TYPE: Final = find_field(None, "error_type")
_HTTP_STATUS: Final = find_field(None, "http_status")
_VALUES: Final = re.compile(
    r"(?P<id>\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b|\b(?=[a-zA-Z]*[0-9])[0-9a-fA-F]{8,}\b"
    r"|\b0x[0-9a-fA-F]+\b)|(?P<quoted>'[^'\n]*'|\"[^\"\n]*\")|(?P<number>\d+(?:[.,:]\d+)*)"
)


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Failed traces that failed alike; times in ms since the epoch.

    ``kind`` is the type of the exception, or the HTTP status without one. In ``message``, numbers, ids and
    quoted parts are masked; ``where`` is the innermost frame of the app. ``is_new``: only the newest release
    has it. ``example`` is the id of the newest trace, and ``filter`` finds traces like it.
    """

    kind: str
    message: str
    where: str
    traces: int
    users: int
    first_seen: int
    last_seen: int
    versions: tuple[str, ...]
    is_new: bool
    example: str
    filter: str

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that can be written as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ErrorGroups(Tabular):
    """The groups, the one with the most traces first.

    Of ``errors`` failed traces the newest ``traces`` were read; ``is_whole``: they are all.
    """

    groups: tuple[ErrorGroup, ...]
    errors: int
    traces: int
    is_whole: bool
    window: Window

    def _rows(self) -> Iterable[object]:
        return self.groups


@dataclass(slots=True)
class _Members:
    traces: list[Trace] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def read_error_groups(snapshot: Snapshot, selection: Selection, window: Window) -> ErrorGroups:
    """The failed traces of a selection within a time range, in groups."""
    tree = _FAILED if selection.tree is None else And((selection.tree, _FAILED))
    within = window.limit(Selection(tree, selection.experiments))
    page = snapshot.search(within, NEWEST_FIRST, MOST_READ)
    total = len(page.keys) if page.after is None else snapshot.count(within)
    groups: dict[tuple[str, str, str], _Members] = {}
    for trace in snapshot.read(page.keys):
        failure = _failure_of(trace)
        key = failure.kind, mask(failure.message), place_of(failure.stack)
        members = groups.setdefault(key, _Members())
        members.traces.append(trace)
        members.failures.append(failure)
    newest = _newest_version(snapshot, selection) if groups else None
    found = [_group(key, members, newest) for key, members in groups.items()]
    found.sort(key=lambda one: (-one.traces, -one.last_seen))
    return ErrorGroups(tuple(found), total, len(page.keys), page.after is None, window)


def mask(message: str) -> str:
    """The message with its numbers, ids and quoted parts masked."""
    signs = {"id": "<id>", "quoted": "'…'", "number": "#"}
    return _VALUES.sub(lambda match: signs[match.lastgroup or ""], message[:_LONGEST]).strip()


def _failure_of(trace: Trace) -> Failure:
    """What made the trace fail: its first exception, or else the status of the response."""
    failures = failures_of(trace.data.spans)
    raised = next((one for one in failures if one.kind), next(iter(failures), None))
    if raised is not None and raised.kind:
        return raised
    status = http_status(trace)
    kind = "error" if status is None else f"HTTP {status}"
    return Failure(kind, "" if raised is None else raised.message, "")


def _newest_version(snapshot: Snapshot, selection: Selection) -> str | None:
    """The version that was seen first last; ``None`` if there is only one."""
    first: dict[str, int] = {}
    for source in snapshot.sources(Selection(None, selection.experiments), 500):
        if (version := source.metadata.get(keys.APP_VERSION)) is not None:
            first[version] = min(source.first_seen, first.get(version, source.first_seen))
    return max(first, key=lambda version: first[version]) if len(first) > 1 else None


def _group(key: tuple[str, str, str], members: _Members, newest: str | None) -> ErrorGroup:
    kind, message, where = key
    infos = [trace.info for trace in members.traces]
    versions = {version for info in infos if (version := info.trace_metadata.get(keys.APP_VERSION))}
    return ErrorGroup(
        kind=kind,
        message=message,
        where=where,
        traces=len(infos),
        users=len({user for info in infos if (user := info.trace_metadata.get(keys.USER))}),
        first_seen=min(info.request_time for info in infos),
        last_seen=max(info.request_time for info in infos),
        versions=tuple(sorted(versions)[:_MOST_VERSIONS]),
        is_new=versions == {newest},
        example=infos[0].trace_id,
        filter=format_filter(_filter(members.traces[0], members.failures[0])),
    )


def _filter(newest: Trace, failure: Failure) -> Node:
    """A filter for traces with this failure: its message with wildcards for what is masked."""
    status = http_status(newest)
    if failure.message:
        pattern = f"%{_VALUES.sub('%', failure.message[:_LONGEST]).strip()}%"
        told = Compare(_MESSAGE, Operator.LIKE, re.sub("%+", "%", pattern))
        return And((_FAILED, _SPAN_FAILED, told))
    if failure.kind and failure.stack:
        return And((_FAILED, Compare(_ERROR_TYPE, Operator.EQ, failure.kind)))
    return _FAILED if status is None else And((_FAILED, Compare(_HTTP_STATUS, Operator.EQ, status)))
