"""Comparisons with known figures."""

from __future__ import annotations

from dataclasses import replace

from wherefrom.analysis import Comparison, Interval, Row, Verdict

EDGES = (10.0, 20.0, 40.0, 80.0, 160.0)


def make_row(value: str, **figures: object) -> Row:
    row = Row(
        value=value,
        traces=200,
        errors=20,
        error_rate=0.1,
        error_rate_interval=Interval(0.05, 0.2),
        p50=50.0,
        p50_interval=Interval(40.0, 60.0),
        p95=100.0,
        p95_interval=Interval(80.0, None),
        p99=150.0,
        p99_interval=Interval(None, None),
        traces_per_hour=None,
        first_seen=0,
        last_seen=1,
        tokens=None,
        histogram=(0, 50, 100, 50),
    )
    return replace(row, **figures)  # type: ignore[arg-type]


def make_comparison(*rows: Row, **facts: object) -> Comparison:
    found = Comparison("app_version", rows, rows[0].value if rows else None, 0, 0, 3, 0.95, edges=EDGES)
    return replace(found, **facts)  # type: ignore[arg-type]


def judged(value: str, verdict: Verdict, **figures: object) -> Row:
    return make_row(value, against="1.0", verdict=verdict, reason="for a reason", **figures)
