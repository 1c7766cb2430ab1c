"""The Status page: what was recorded, stored, dropped and refused, and what the store holds."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from ..._units import counted, size
from ...analysis.scope import opened
from ...process import ProcessReport, Stats
from ...stores.base import StoreState as State
from ...tracing.assembly import stats
from ..page import Page, Reader
from ..parameters import Parameters

SILENT_MS: Final = 300_000
_LITTLE_DISK: Final = 1_000_000_000

LOSSES: Final = {
    "queue_full": "the queue was full: the store or an exporter did not keep up",
    "queue_bytes": "the queues took all the memory they may: the store or an exporter did not keep up",
    "shutdown": "the process ended before they were written",
    "sink_failed": "a sink failed",
    "refused_by_sink": "the store or an exporter refused them",
    "spans_rejected": "the collector rejected these spans",
    "recording_failed": "recording failed",
}


class Kind(StrEnum):
    """What a remark is."""

    TROUBLE = "trouble"  # somebody should look after it
    NOTE = "note"
    WELL = "well"


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence about how things stand."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Process:
    """One process that records, as it last said; ``is_silent`` where that was over five minutes ago."""

    report: ProcessReport
    is_silent: bool


@dataclass(frozen=True, slots=True)
class StatusView:
    """How things stand ``now`` (ms since the epoch); ``total`` is the sum of what the processes say."""

    now: int
    remarks: tuple[Remark, ...]
    total: Stats
    processes: tuple[Process, ...]
    store: State


def view_status(reader: Reader, _query: Parameters) -> StatusView:
    """What the processes say of themselves, and the store."""
    now = time.time_ns() // 1_000_000
    with opened(reader.store) as (snapshot, _):
        state = snapshot.state()
    reports = [_fresh(report, now) for report in reader.client.list_processes()]
    total = add_up(report.stats for report in reports)
    processes = tuple(Process(report, now - report.reported > SILENT_MS) for report in reports)
    return StatusView(now, tuple(make_remarks(state, total, reports)), total, processes, state)


def _fresh(report: ProcessReport, now: int) -> ProcessReport:
    """The report of the process in which the page is mounted, as of now; any other as it is."""
    if (report.host, report.pid) != (socket.gethostname(), os.getpid()):
        return report
    return replace(report, stats=stats(), reported=now)


def add_up(stats: Iterable[Stats]) -> Stats:
    """The sum of the counters of several processes."""
    every = list(stats)
    return Stats(
        recorded=sum(one.recorded for one in every),
        stored=sum(one.stored for one in every),
        dropped=_sum(one.dropped for one in every),
        refused_headers=_sum(one.refused_headers for one in every),
        errors=_sum(one.errors for one in every),
        queue_depth=sum(one.queue_depth for one in every),
        queue_bytes=sum(one.queue_bytes for one in every),
    )


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total.most_common())


def make_remarks(state: State, total: Stats, reports: Sequence[ProcessReport]) -> Iterator[Remark]:
    """What there is to say of it, trouble first."""
    for reason, count in total.dropped.items():
        yield Remark(Kind.TROUBLE, f"{count:,} dropped: {LOSSES.get(reason, reason.replace('_', ' '))}.")
    for place, count in total.errors.items():
        yield Remark(Kind.TROUBLE, f"{place} failed {counted(count, 'time')}: the log of the app says why.")
    if state.disk_free is not None and state.disk_free < _LITTLE_DISK:
        yield Remark(Kind.TROUBLE, f"The disk of the store has {size(state.disk_free)} left.")
    for header, count in total.refused_headers.items():
        why = "empty, too long, or with control characters"
        yield Remark(Kind.NOTE, f"{header} was refused {counted(count, 'time')}: {why}.")
    if reports and not total.dropped and not total.errors:
        processes = counted(len(reports), "process", "processes")
        traces = counted(total.recorded, "trace")
        yield Remark(Kind.WELL, f"{processes} recorded {traces} during the last week; none was lost.")


def _early(_reader: Reader, _query: Parameters) -> None:
    """Nothing: a count takes its time."""


PAGES: Final = (
    Page(
        path="/status",
        title="Status",
        view=view_status,
        early=_early,
        answer=StatusView,
        template="status.html",
        summary="What was recorded, stored, dropped and refused, by process; and the size of the store.",
    ),
)
