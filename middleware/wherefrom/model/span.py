"""Spans: one timed operation in a trace."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from .. import keys
from .._capture.values import clean_text, plain, to_json
from ..exceptions import InvalidTraceError
from . import checks

_RESERVED = (keys.SPAN_TRACE_ID, keys.SPAN_TYPE, keys.SPAN_INPUTS, keys.SPAN_OUTPUTS)


class SpanType(StrEnum):
    """MLflow's span types, and two of OpenTelemetry's span kinds; any other string is allowed too."""

    SERVER = "SERVER"
    CLIENT = "CLIENT"
    LLM = "LLM"
    CHAIN = "CHAIN"
    AGENT = "AGENT"
    TOOL = "TOOL"
    CHAT_MODEL = "CHAT_MODEL"
    RETRIEVER = "RETRIEVER"
    PARSER = "PARSER"
    EMBEDDING = "EMBEDDING"
    RERANKER = "RERANKER"
    MEMORY = "MEMORY"
    WORKFLOW = "WORKFLOW"
    TASK = "TASK"
    GUARDRAIL = "GUARDRAIL"
    EVALUATOR = "EVALUATOR"
    UNKNOWN = "UNKNOWN"


class SpanStatusCode(StrEnum):
    """OpenTelemetry's span status codes."""

    UNSET = "UNSET"
    OK = "OK"
    ERROR = "ERROR"


@dataclass(slots=True, frozen=True)
class SpanStatus:
    """How a span ended: a code and, for errors, ``"Type: message"``."""

    code: SpanStatusCode = SpanStatusCode.UNSET
    description: str = ""


UNSET = SpanStatus()
OK = SpanStatus(SpanStatusCode.OK)


@dataclass(slots=True)
class SpanEvent:
    """Something that happened at one moment of a span; ``timestamp`` in ns since the epoch."""

    name: str
    timestamp: int
    attributes: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The event as in MLflow's trace JSON."""
        return {"name": self.name, "time_unix_nano": self.timestamp, "attributes": plain(self.attributes)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SpanEvent:
        """Read an event of MLflow's trace JSON.

        Raises:
            InvalidTraceError: something in ``data`` is malformed.
        """
        return cls(
            checks.text("the name of an event", data.get("name")),
            checks.whole_number("time_unix_nano", data.get("time_unix_nano"), checks.LATEST_NS),
            checks.attributes("the attributes of an event", data.get("attributes")),
        )


@dataclass
class Span:
    """One timed operation.

    ``trace_id`` is ``"tr-"`` + 32 hex, ``span_id`` and ``parent_id`` 16 hex (``parent_id`` is ``None``
    for a root), times are ns since the epoch (``end_time_ns`` is ``None`` while it runs). ``inputs``,
    ``outputs`` and ``attributes`` hold JSON values. ``links`` are OpenTelemetry's: dicts with
    ``trace_id``, ``span_id`` and ``attributes``.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    span_type: str = SpanType.UNKNOWN
    start_time_ns: int = 0
    end_time_ns: int | None = None
    status: SpanStatus = UNSET
    inputs: Any = None
    outputs: Any = None
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[SpanEvent] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)

    def all_attributes(self) -> dict[str, Any]:
        """The attributes with what MLflow keeps among them: trace id, type, inputs and outputs."""
        told = {keys.SPAN_TRACE_ID: self.trace_id, keys.SPAN_TYPE: self.span_type}
        if self.inputs is not None:
            told[keys.SPAN_INPUTS] = self.inputs
        if self.outputs is not None:
            told[keys.SPAN_OUTPUTS] = self.outputs
        return told | self.attributes

    def to_dict(self) -> dict[str, Any]:
        """The span as in MLflow's trace JSON: base64 ids, every attribute a JSON string."""
        return {
            "trace_id": _to_base64(self.trace_id.removeprefix("tr-")),
            "span_id": _to_base64(self.span_id),
            "parent_span_id": _to_base64(self.parent_id) if self.parent_id else None,
            "name": self.name,
            "start_time_unix_nano": self.start_time_ns,
            "end_time_unix_nano": self.end_time_ns,
            "events": [event.to_dict() for event in self.events],
            "status": {"code": f"STATUS_CODE_{self.status.code}", "message": self.status.description},
            "attributes": {key: to_json(value) for key, value in self.all_attributes().items()},
            "links": plain(self.links),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Span:
        """Read a span of MLflow's trace JSON.

        Raises:
            InvalidTraceError: something in ``data`` is missing or malformed.
        """
        try:
            given = checks.mapping("attributes", data.get("attributes"))
            attributes = {clean_text(key): _from_json(value) for key, value in given.items()}
            trace_id = attributes.get(keys.SPAN_TRACE_ID) or "tr-" + _from_base64(data["trace_id"])
            status = checks.mapping("status", data.get("status"))
            code = checks.text("the code of a status", status.get("code", "UNSET"))
            end = data.get("end_time_unix_nano")
            parent = data.get("parent_span_id")
            return cls(
                trace_id=checks.identifier("trace_id", trace_id),
                span_id=checks.identifier("span_id", _from_base64(data["span_id"])),
                parent_id=checks.identifier("parent_span_id", _from_base64(parent)) if parent else None,
                name=checks.text("name", data["name"]),
                span_type=checks.text("type", attributes.get(keys.SPAN_TYPE) or SpanType.UNKNOWN),
                start_time_ns=_nanoseconds(data, "start_time_unix_nano"),
                end_time_ns=None if end is None else _nanoseconds(data, "end_time_unix_nano"),
                status=SpanStatus(
                    SpanStatusCode(code.removeprefix("STATUS_CODE_")),
                    checks.text("the message of a status", status.get("message") or ""),
                ),
                inputs=attributes.get(keys.SPAN_INPUTS),
                outputs=attributes.get(keys.SPAN_OUTPUTS),
                attributes={key: value for key, value in attributes.items() if key not in _RESERVED},
                events=[SpanEvent.from_dict(event) for event in checks.listed("events", data.get("events"))],
                links=[_link(link) for link in checks.listed("links", data.get("links"))],
            )
        except InvalidTraceError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InvalidTraceError(f"not a span of MLflow's trace JSON: {error!r}") from error


def _nanoseconds(data: dict[str, Any], name: str) -> int:
    return checks.whole_number(name, data[name], checks.LATEST_NS)


def _link(data: Any) -> dict[str, Any]:
    given = checks.mapping("a link", data)
    link: dict[str, Any] = {
        name: checks.identifier(f"{name} of a link", given.get(name)) for name in ("trace_id", "span_id")
    }
    if "attributes" in given:
        link["attributes"] = checks.attributes("the attributes of a link", given["attributes"])
    return link


def _to_base64(hex_id: str) -> str:
    try:
        raw = bytes.fromhex(hex_id)
    except ValueError:  # an id from elsewhere that is not hex
        raw = hex_id.encode("utf-8", "replace")
    return b64encode(raw).decode()


def _from_base64(text: Any) -> str:
    try:
        return b64decode(checks.text("a base64 id", text), validate=True).hex()
    except InvalidTraceError:
        raise
    except ValueError as error:
        raise InvalidTraceError(f"not a base64 id: {text!r}") from error


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return checks.json_data(value)
    try:
        return checks.json_data(orjson.loads(value))
    except ValueError:
        return clean_text(value)
