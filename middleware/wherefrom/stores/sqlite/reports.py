"""What the processes that write to a store say of themselves: what became of their traces."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from typing import Any, Final

import orjson
from sqlalchemy import Connection, select

from ...process import ProcessReport, Stats
from .reader import Prepared
from .schema import processes

_KEPT_MS: Final = 7 * 86_400_000
_WRITE: Final = """
INSERT INTO processes (host, pid, started, reported, report) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (host, pid, started) DO UPDATE SET reported = excluded.reported, report = excluded.report
"""
_READ: Final = Prepared(
    select(
        processes.c.host,
        processes.c.pid,
        processes.c.started,
        processes.c.reported,
        processes.c.report,
    ).order_by(processes.c.reported.desc(), processes.c.id)
)


def write_report(connection: sqlite3.Connection, report: ProcessReport) -> None:
    """Put a report in the place of the last one of its process; the caller holds the transaction.

    Reports of processes that have been silent for a week go.
    """
    told = {"stats": asdict(report.stats), "queues": report.queues, "retention_days": report.retention_days}
    row = (report.host, report.pid, report.started, report.reported, orjson.dumps(told).decode())
    connection.execute(_WRITE, row)
    connection.execute("DELETE FROM processes WHERE reported < ?", (report.reported - _KEPT_MS,))


def read_reports(connection: Connection) -> list[ProcessReport]:
    """The last report of each process, the newest first."""
    return [_to_report(*row) for row in _READ.rows(connection)]


def _to_report(host: str, pid: int, started: int, reported: int, text: str) -> ProcessReport:
    told: dict[str, Any] = orjson.loads(text)
    stats = Stats(**told["stats"])
    return ProcessReport(host, pid, started, reported, stats, told["queues"], told["retention_days"])
