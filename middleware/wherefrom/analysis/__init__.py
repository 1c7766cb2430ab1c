"""Comparisons of releases, flags and values: which is worse, by how much, with confidence intervals."""

from __future__ import annotations

from ..stores.base import Tokens
from .api import compare, deployments, errors, flag, read_session, sessions, timeline, turns, versions
from .deployments import Deployment, Deployments
from .error_groups import ErrorGroup, ErrorGroups
from .results import (
    Comparison,
    ErrorDifference,
    LatencyDifference,
    Regression,
    Row,
    TailDifference,
    Verdict,
    Versions,
)
from .sessions import Session, Turn
from .statistics import Interval
from .timeline import Bucket, Timeline
from .verdicts import VerdictSentence, headline, sentence, summary

__all__ = [
    "Bucket",
    "Comparison",
    "Deployment",
    "Deployments",
    "ErrorDifference",
    "ErrorGroup",
    "ErrorGroups",
    "Interval",
    "LatencyDifference",
    "Regression",
    "Row",
    "Session",
    "TailDifference",
    "Timeline",
    "Tokens",
    "Turn",
    "Verdict",
    "VerdictSentence",
    "Versions",
    "compare",
    "deployments",
    "errors",
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
