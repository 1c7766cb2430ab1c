"""What MLflow keeps of a trace beside its spans: ``StartTraceV3``, one request a trace.

It is an upsert: metadata and tags are merged into what is there, the rest replaces it. Metadata cannot be
carried by OTLP at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ... import keys
from ..._capture.values import clean_text, cut, dump
from ...model import TraceInfo

REQUEST_ID: Final = "wherefrom.request_id"
"""Metadata: a ``client_request_id`` that was too long for its column."""

OF_THE_SERVER: Final = frozenset({"mlflow.artifactLocation", "mlflow.trace.spansLocation"})
"""Tags that say where a server keeps a trace: those of another one would make it unreadable."""

FINALIZED: Final = "mlflow.trace.infoFinalized"
"""Metadata that the server sets when it is told of a trace."""

# mlflow/tracing/constant.py: MAX_CHARS_IN_TRACE_INFO_METADATA, …_TAGS_KEY, …_TAGS_VALUE
MAX_KEY: Final = 250
MAX_VALUE: Final = 250
MAX_TAG: Final = 4096
# mlflow/store/tracking/dbmodels/models.py: columns that PostgreSQL and MySQL hold to their length
MAX_REQUEST_ID: Final = 50
MAX_PREVIEW: Final = 1000

_ELLIPTIC: Final = (keys.TRACE_INPUTS, keys.TRACE_OUTPUTS)


def start_trace(info: TraceInfo, experiment_id: str, *, narrow: bool = False) -> bytes:
    """The body of a ``StartTraceV3`` request, with everything cut as MLflow's own client cuts it.

    ``narrow``: for a database that refused that. What SQLite takes, PostgreSQL may not: NUL characters, and
    texts longer than their column.

    Raises:
        ValueError, OverflowError: the trace began before the year 1 or after 9999.
    """
    told = info.to_dict()
    told["trace_location"]["mlflow_experiment"]["experiment_id"] = experiment_id
    if (ms := told.pop("execution_duration_ms", None)) is not None:
        told["execution_duration"] = f"{ms / 1000:.3f}s"
    told["trace_metadata"] = cut_metadata(info.trace_metadata)
    told["tags"] = cut_tags(info.tags)
    if narrow:
        told = _narrowed(told)
    return dump({"trace": {"trace_info": told}})


def cut_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Metadata as MLflow's client cuts it."""
    pairs = dict(metadata)
    pairs.pop(FINALIZED, None)
    for key in _ELLIPTIC:
        if key in pairs:
            pairs[key] = cut(clean_text(pairs[key]), MAX_VALUE)
    return _cut(pairs, MAX_VALUE)


def cut_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags as MLflow's client cuts them, without those of a server."""
    return _cut({key: value for key, value in dict(tags).items() if key not in OF_THE_SERVER}, MAX_TAG)


def uncut(info: TraceInfo, known: TraceInfo) -> None:
    """Give a trace that comes back from MLflow what was cut off, where it is known."""
    info.trace_metadata = _uncut(info.trace_metadata, known.trace_metadata, cut_metadata)
    info.tags = _uncut(info.tags, known.tags, cut_tags)


def _uncut(
    pairs: dict[str, str], known: dict[str, str], cutting: Callable[[dict[str, str]], dict[str, str]]
) -> dict[str, str]:
    restored = dict(pairs)
    for key, value in known.items():
        for shortened, rest in cutting({key: value}).items():
            if restored.get(shortened) == rest:
                del restored[shortened]
                restored[key] = value
    return restored


def _cut(pairs: Mapping[Any, Any], limit: int) -> dict[str, str]:
    return {clean_text(key)[:MAX_KEY]: clean_text(value)[:limit] for key, value in pairs.items()}


def _narrowed(told: dict[str, Any]) -> dict[str, Any]:
    told = _without_nul(told)
    request_id = told.get("client_request_id", "")
    if len(request_id) > MAX_REQUEST_ID:
        told["client_request_id"] = request_id[:MAX_REQUEST_ID]
        told["trace_metadata"][REQUEST_ID] = request_id[:MAX_VALUE]
    for key in ("request_preview", "response_preview"):
        if key in told:
            told[key] = cut(told[key], MAX_PREVIEW)
    return told


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return value
