"""The Status page: counters of each recording process, problems, and the size of the store."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from ..._units import counted, size
from ...process import ProcessReport, Stats
from ...stores.base import StoreState
from ...tracing.assembly import stats
from ..page import Page, Reader, no_view
from ..parameters import PageQuery

SILENT_MS: Final = 300_000  # a process reports every few seconds while it records
_LITTLE_DISK: Final = 1_000_000_000  # bytes: time to act before the disk is full

LOSSES: Final = {
    "queue_full": "the queue was full: the store or an exporter is too slow",
    "queue_bytes": "the queues reached their memory limit: the store or an exporter is too slow",
    "shutdown": "the process ended before it wrote them",
    "sink_failed": "a sink raised an exception",
    "refused_by_sink": "the store or an exporter rejected them",
    "spans_rejected": "the collector rejected spans",
    "recording_failed": "recording failed",
}


class Kind(StrEnum):
    """The severity of a remark."""

    TROUBLE = "trouble"  # needs action
    NOTE = "note"
    WELL = "well"


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence about the state of recording."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Process:
    """The last report of a recording process; ``is_silent``: it is more than five minutes old."""

    report: ProcessReport
    is_silent: bool


@dataclass(frozen=True, slots=True)
class StatusView:
    """The state at ``now`` (ms since the epoch); ``total`` adds the counters of all processes."""

    now: int
    remarks: tuple[Remark, ...]
    total: Stats
    processes: tuple[Process, ...]
    store: StoreState


def view_status(reader: Reader, _query: PageQuery) -> StatusView:
    """The reports of the processes, and the state of the store."""
    now, state = reader.snapshot.now_ms, reader.snapshot.state()
    reports = [_fresh(report, now) for report in reader.snapshot.processes()]
    total = add_up(report.stats for report in reports)
    processes = tuple(Process(report, now - report.reported > SILENT_MS) for report in reports)
    return StatusView(now, tuple(make_remarks(state, total, reports)), total, processes, state)


def _fresh(report: ProcessReport, now: int) -> ProcessReport:
    """The report with current counters if it is that of this process, which the page is mounted in."""
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


def make_remarks(state: StoreState, total: Stats, reports: Sequence[ProcessReport]) -> Iterator[Remark]:
    """The remarks, problems first."""
    for reason, count in total.dropped.items():
        yield Remark(Kind.TROUBLE, f"{count:,} dropped: {LOSSES.get(reason, reason.replace('_', ' '))}.")
    for place, count in total.errors.items():
        yield Remark(Kind.TROUBLE, f"{place} failed {counted(count, 'time')}: see the log of the app.")
    if state.disk_free is not None and state.disk_free < _LITTLE_DISK:
        yield Remark(Kind.TROUBLE, f"The disk of the store has {size(state.disk_free)} free.")
    for header, count in total.refused_headers.items():
        why = "empty, too long, or with control characters"
        yield Remark(Kind.NOTE, f"{counted(count, 'value')} of {header} ignored: {why}.")
    if reports and not total.dropped and not total.errors:
        processes = counted(len(reports), "process", "processes")
        traces = counted(total.recorded, "trace")
        yield Remark(Kind.WELL, f"{processes} recorded {traces} in the last seven days and lost none.")


PAGES: Final = (
    Page(
        path="/status",
        title="Status",
        view=view_status,
        early=no_view,
        answer=StatusView,
        template="status.html",
        summary="Counters of each process (recorded, stored, dropped) and the size of the store.",
    ),
)
