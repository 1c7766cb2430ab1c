"""Comparisons of releases, flags and values: which is worse, by how much, with confidence intervals."""

from __future__ import annotations

from ..stores.base import Tokens
from .api import compare, deployments, errors, flag, gate, read_session, sessions, timeline, turns, versions
from .deployments import Deployment, Deployments
from .error_groups import ErrorGroup, ErrorGroups
from .gate import Criterion, Gate, GateVerdict, Limits, Outcome
from .results import (
    Amount,
    AmountDifference,
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
    "Amount",
    "AmountDifference",
    "Bucket",
    "Comparison",
    "Criterion",
    "Deployment",
    "Deployments",
    "ErrorDifference",
    "ErrorGroup",
    "ErrorGroups",
    "Gate",
    "GateVerdict",
    "Interval",
    "LatencyDifference",
    "Limits",
    "Outcome",
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
    "gate",
    "headline",
    "read_session",
    "sentence",
    "sessions",
    "summary",
    "timeline",
    "turns",
    "versions",
]
