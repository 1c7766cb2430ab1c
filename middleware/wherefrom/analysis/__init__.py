"""Comparisons that decide: which release, flag or value is worse, by how much, and how sure that is."""

from __future__ import annotations

from .buckets import Bucket, Timeline, timeline
from .comparison import compare, flag
from .conversations import Session, sessions
from .deployed import Deployment, Deployments, deployments
from .dialogue import Turn, read_session, turns
from .intervals import Interval
from .releases import versions
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
from .sentences import Said, headline, sentence, summary

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
