"""Comparisons that decide: which release, flag or value is worse, by how much, and how sure that is."""

from __future__ import annotations

from .comparison import compare, flag, versions
from .deployments import Deployment, Deployments, deployments
from .results import (
    Comparison,
    ErrorDifference,
    LatencyDifference,
    Regression,
    Row,
    TailDifference,
    Tokens,
    Verdict,
    Versions,
)
from .sessions import Session, Turn, read_session, sessions, turns
from .statistics import Interval
from .timeline import Bucket, Timeline, timeline
from .verdicts import Said, headline, sentence, summary

__all__ = [
    "Bucket",
    "Comparison",
    "Deployment",
    "Deployments",
    "ErrorDifference",
    "Interval",
    "LatencyDifference",
    "Regression",
    "Row",
    "Said",
    "Session",
    "TailDifference",
    "Timeline",
    "Tokens",
    "Turn",
    "Verdict",
    "Versions",
    "compare",
    "deployments",
    "flag",
    "headline",
    "read_session",
    "sentence",
    "sessions",
    "summary",
    "timeline",
    "turns",
    "versions",
]
