"""What is said of a whole trace, in one form for both sides: that is how they are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mlflow.entities import TraceInfo as MLflowInfo
from mlflow.entities import TraceState as MLflowState

from ... import keys
from ...model import TraceState
from ...recorder import LiveTrace
from ...values import clean_text

Term = tuple[str, str | None]
"""A field of the info, and for ``trace_metadata`` and ``tags`` a key in it."""

Terms = Mapping[Term, Any]

_MAX_SESSION: Final = 250
"""MLflow's stores refuse a trace whose session id is longer, and with it all that is said of the trace."""

_FIELDS: Final = ("client_request_id", "request_preview", "response_preview")
_PAIRS: Final = ("trace_metadata", "tags")


def of_mlflow(info: MLflowInfo) -> dict[Term, Any]:
    """What MLflow has been told."""
    terms = _common(info)
    if info.state in {MLflowState.OK, MLflowState.ERROR}:
        terms["state", None] = info.state.value
    return terms


def of_ours(trace: LiveTrace) -> dict[Term, Any]:
    """What we have been told."""
    terms = _common(trace.info)
    if trace.stated is not None:
        terms["state", None] = trace.stated.value
    return terms


def _common(info: Any) -> dict[Term, Any]:
    terms = {(field, None): value for field in _FIELDS if (value := getattr(info, field)) is not None}
    return terms | {(field, key): value for field in _PAIRS for key, value in getattr(info, field).items()}


def to_ours(trace: LiveTrace, news: Terms) -> None:
    """Take what MLflow has been told since, as if it had been said to us."""
    info, limit = trace.info, trace.recorder.max_length
    for (field, key), value in news.items():
        if value is None:
            continue
        if field == "state":
            trace.stated = TraceState(value)
        elif key is None:
            setattr(info, field, clean_text(value, limit))
        else:
            add = trace.add_tags if field == "tags" else trace.add_metadata
            add({key: value})
            if key == keys.USER:
                info.trace_metadata[keys.USER] = trace.recorder.user(info.trace_metadata[keys.USER])


def to_mlflow(info: MLflowInfo, terms: Terms) -> None:
    """Tell MLflow, in strings that every one of its stores takes."""
    for field in _PAIRS:
        pairs: dict[Any, str] = getattr(info, field)
        for odd in [key for key in pairs if not isinstance(key, str)]:
            del pairs[odd]  # said to us by now, as text
    for (field, key), value in terms.items():
        if field == "state":
            info.state = MLflowState(value)
        elif key is None:
            setattr(info, field, value)
        else:
            getattr(info, field)[key] = value[:_MAX_SESSION] if key == keys.SESSION else value
