"""Traces: what one request, or one decorated call outside a request, left behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import orjson

from .. import keys
from .._capture.values import clean_text, dump
from ..exceptions import InvalidTraceError
from . import checks
from .assessment import Assessment
from .size import memory_of
from .span import Span
from .times import from_rfc3339, to_rfc3339

_TRACE_BYTES: Final = 1500
_SPAN_BYTES: Final = 900
_EVENT_BYTES: Final = 200


class TraceState(StrEnum):
    """MLflow's trace states; each equals its own name as a string."""

    STATE_UNSPECIFIED = "STATE_UNSPECIFIED"
    IN_PROGRESS = "IN_PROGRESS"
    OK = "OK"
    ERROR = "ERROR"


class Source(Mapping[str, str]):
    """The metadata that is the same for every trace of one process. Immutable.

    ``digest`` (32 hex) is a hash of the content: equal sources have equal digests, in any process.
    ``pairs`` is the dict behind it, to copy and never to change.
    """

    __slots__ = ("digest", "pairs")

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.pairs = dict(pairs)
        content = orjson.dumps(self.pairs, option=orjson.OPT_SORT_KEYS)
        self.digest = blake2b(content, digest_size=16).hexdigest()

    def without(self, names: Iterable[str]) -> Source:
        """Return a source without these keys; the same source if it has none of them."""
        left_out = self.pairs.keys() & names
        return _without(self, frozenset(left_out)) if left_out else self

    def __getitem__(self, key: str) -> str:
        return self.pairs[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Source({self.pairs!r})"


@lru_cache(maxsize=1_000)
def _without(source: Source, names: frozenset[str]) -> Source:
    return Source({key: value for key, value in source.pairs.items() if key not in names})


@dataclass(slots=True)
class TraceInfo:
    """Everything about a trace but its spans.

    ``request_time`` is ms since the epoch and ``execution_duration`` ms (``None`` while it runs), both
    floored as MLflow does. ``experiment`` is the name under which an application's traces are kept.
    ``source`` is the process metadata that ``trace_metadata`` started from, so that a store can write
    it once; it is ``None`` on traces that came from elsewhere. ``assessments`` are feedback and expectations,
    the oldest first; a trace that is recorded has none before it is read from a store.
    """

    trace_id: str
    experiment: str = "default"
    request_time: int = 0
    execution_duration: int | None = None
    state: TraceState = TraceState.STATE_UNSPECIFIED
    client_request_id: str | None = None
    request_preview: str | None = None
    response_preview: str | None = None
    trace_metadata: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    source: Source | None = field(default=None, compare=False, repr=False)
    assessments: list[Assessment] = field(default_factory=list)

    @property
    def status(self) -> TraceState:
        """``state``, as MLflow 2 named it."""
        return self.state

    @property
    def timestamp_ms(self) -> int:
        """``request_time``, as MLflow 2 named it."""
        return self.request_time

    @property
    def execution_time_ms(self) -> int | None:
        """``execution_duration``, as MLflow 2 named it."""
        return self.execution_duration

    @property
    def request_metadata(self) -> dict[str, str]:
        """``trace_metadata``, as MLflow 2 named it."""
        return self.trace_metadata

    @property
    def request_id(self) -> str:
        """``trace_id``, as MLflow 2 named it (not the client's request id)."""
        return self.trace_id

    @property
    def experiment_id(self) -> str:
        """``experiment``, under the name that code written for MLflow reads."""
        return self.experiment

    @property
    def name(self) -> str | None:
        """The root span's name, kept in the tag ``mlflow.traceName`` as in MLflow."""
        return self.tags.get(keys.TRACE_NAME_TAG)

    def to_dict(self) -> dict[str, Any]:
        """The info as in MLflow's trace JSON; absent fields are left out."""
        data: dict[str, Any] = {
            "trace_id": self.trace_id,
            "client_request_id": self.client_request_id,
            "trace_location": {
                "type": "MLFLOW_EXPERIMENT",
                "mlflow_experiment": {"experiment_id": self.experiment},
            },
            "request_time": to_rfc3339(self.request_time),
            "execution_duration_ms": self.execution_duration,
            "state": self.state.value,
            "trace_metadata": dict(self.trace_metadata),
            "tags": dict(self.tags),
            "request_preview": self.request_preview,
            "response_preview": self.response_preview,
            "assessments": [one.to_dict() for one in self.assessments] or None,
        }
        return {key: value for key, value in data.items() if value is not None}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TraceInfo:
        """Read the info of MLflow's trace JSON (``execution_duration`` may also be ``"0.186s"``).

        Raises:
            InvalidTraceError: something in ``data`` is missing or malformed.
        """
        try:
            trace_id = checks.identifier("trace_id", data["trace_id"])
            location = checks.mapping("trace_location", data.get("trace_location"))
            experiment = checks.mapping("mlflow_experiment", location.get("mlflow_experiment"))
            return cls(
                trace_id=trace_id,
                experiment=clean_text(experiment.get("experiment_id", "default")),
                request_time=from_rfc3339("request_time", data["request_time"]),
                execution_duration=_duration_ms(data),
                state=TraceState(checks.text("state", data.get("state", TraceState.STATE_UNSPECIFIED))),
                client_request_id=checks.optional_text("client_request_id", data.get("client_request_id")),
                request_preview=checks.optional_text("request_preview", data.get("request_preview")),
                response_preview=checks.optional_text("response_preview", data.get("response_preview")),
                trace_metadata=checks.strings("trace_metadata", data.get("trace_metadata")),
                tags=checks.strings("tags", data.get("tags")),
                assessments=read_assessments(trace_id, data.get("assessments")),
            )
        except InvalidTraceError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InvalidTraceError(f"not an info of MLflow's trace JSON: {error!r}") from error


@dataclass(slots=True)
class TraceData:
    """The spans of a trace, in the order in which they started."""

    spans: list[Span] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The spans as in MLflow's trace JSON."""
        return {"spans": [span.to_dict() for span in self.spans]}


@dataclass(slots=True)
class Trace:
    """One trace: ``info`` about it and its spans in ``data.spans``."""

    info: TraceInfo
    data: TraceData = field(default_factory=TraceData)

    @property
    def root(self) -> Span | None:
        """The span without a parent, else the first whose parent is not here; ``None`` without spans."""
        spans = self.data.spans
        if (root := next((span for span in spans if span.parent_id is None), None)) is not None:
            return root
        known = {span.span_id for span in spans}
        return next((span for span in spans if span.parent_id not in known), None)

    @property
    def duration_ns(self) -> int | None:
        """How long the request took, from its root span where that tells it finer than milliseconds."""
        known = self.info.execution_duration
        if known is None:
            return None
        root = self.root
        if root is None or root.end_time_ns is None:
            return known * 1_000_000
        finer = root.end_time_ns - root.start_time_ns
        return finer if finer // 1_000_000 == known else known * 1_000_000

    def memory(self) -> int:
        """Bytes of memory that it takes, about."""
        info, spans = self.info, self.data.spans
        values: list[Any] = [info.trace_metadata, info.tags, info.client_request_id]
        values += (info.request_preview, info.response_preview)
        own = _TRACE_BYTES
        for span in spans:
            own += _SPAN_BYTES + len(span.events) * _EVENT_BYTES
            values += (
                span.name,
                span.status.description,
                span.inputs,
                span.outputs,
                span.attributes,
                span.links,
            )
            values += [part for event in span.events for part in (event.name, event.attributes)]
        return own + memory_of(values)

    def to_dict(self) -> dict[str, Any]:
        """The trace as MLflow's trace JSON (``mlflow.entities.Trace.to_dict``)."""
        return {"info": self.info.to_dict(), "data": self.data.to_dict()}

    def to_json(self, pretty: bool = False) -> str:
        """``to_dict`` as JSON text, indented when ``pretty``."""
        data = dump(self.to_dict())
        return (orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2) if pretty else data).decode()

    @classmethod
    def from_dict(cls, data: Any) -> Trace:
        """Read MLflow's trace JSON.

        Raises:
            InvalidTraceError: something in ``data`` is missing or malformed.
        """
        if not isinstance(data, dict) or not isinstance(data.get("info"), dict):
            raise InvalidTraceError("not MLflow's trace JSON: it is an object with 'info' and 'data'")
        content = data.get("data") or {}
        spans = (content.get("spans") or []) if isinstance(content, dict) else None
        if not isinstance(spans, list):
            raise InvalidTraceError("not MLflow's trace JSON: 'data' is an object with a list of 'spans'")
        return cls(TraceInfo.from_dict(data["info"]), TraceData([Span.from_dict(span) for span in spans]))

    @classmethod
    def from_json(cls, text: str | bytes) -> Trace:
        """Read MLflow's trace JSON from text.

        Raises:
            InvalidTraceError: the text is not JSON, or not a trace.
        """
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise InvalidTraceError(f"not JSON: {error}") from error
        return cls.from_dict(data)


def read_assessments(trace_id: str, data: object) -> list[Assessment]:
    """The feedback and expectations in MLflow's JSON of a trace; references to issues are left out.

    Raises:
        InvalidTraceError: something in ``data`` is missing or malformed.
    """
    found = [checks.mapping("an assessment", one) for one in checks.listed("assessments", data)]
    kept = [one for one in found if one.get("issue") is None]
    return sorted((Assessment.from_dict(one, trace_id) for one in kept), key=Assessment.order)


def _duration_ms(data: dict[str, Any]) -> int | None:
    ms: Any = data.get("execution_duration_ms")
    if ms is None and (text := data.get("execution_duration")) is not None:
        ms = round(float(clean_text(text).removesuffix("s")) * 1000)
    if isinstance(ms, (int, float)) and ms < 0:  # a clock that was set back in between
        ms = 0
    return None if ms is None else checks.whole_number("execution_duration", ms, checks.LONGEST_MS)
