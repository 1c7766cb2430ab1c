"""One trace: its exceptions, its metadata in groups, and its tags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from .. import keys
from .._units import duration, size
from ..model import Span, SpanEvent, SpanStatusCode, Trace

_EVENT: Final = "exception"
_STACK_TITLE: Final = "Traceback (most recent call last):"


@dataclass(slots=True)
class Failure:
    """One exception with the spans it passed through, the innermost first; ``kind`` is its type.

    A span that failed without an exception has a failure without ``kind`` and ``stack``.
    """

    kind: str
    message: str
    stack: str
    spans: list[str] = field(default_factory=list)


def failures_of(spans: Sequence[Span]) -> list[Failure]:
    """The failures in the order in which they happened; an exception recorded in several spans counts once."""
    recorded = [(*_of_event(event), span) for span in spans for event in span.events if event.name == _EVENT]
    recorded += [(*_of_status(span), span) for span in spans if _fails_without_exception(span)]
    found: dict[tuple[str, str], Failure] = {}
    for _, kind, message, stack, span in sorted(recorded, key=itemgetter(0)):
        failure = found.setdefault((kind, message), Failure(kind, message, stack))
        if span.name not in failure.spans:
            failure.spans.append(span.name)
    return list(found.values())


def frames_of(failure: Failure) -> str:
    """The stack of the exception raised last, without the lines that repeat its type and message."""
    stack = failure.stack.rpartition(_STACK_TITLE)[2].strip("\n").rstrip()
    for ending in (f"{failure.kind}: {failure.message}", failure.kind):
        if ending and stack.endswith("\n" + ending.rstrip()):
            return stack.removesuffix(ending.rstrip()).rstrip()
    return stack


def _of_event(event: SpanEvent) -> tuple[int, str, str, str]:
    names = (f"{_EVENT}.type", f"{_EVENT}.message", f"{_EVENT}.stacktrace")
    kind, message, stack = (str(event.attributes.get(name, "")) for name in names)
    return event.timestamp, kind, message, stack


def _of_status(span: Span) -> tuple[int, str, str, str]:
    return span.end_time_ns or span.start_time_ns, "", span.status.description, ""


def _fails_without_exception(span: Span) -> bool:
    """Whether a span failed with a message and without an exception."""
    has_event = any(event.name == _EVENT for event in span.events)
    return span.status.code is SpanStatusCode.ERROR and bool(span.status.description) and not has_event


@dataclass(frozen=True, slots=True)
class Pair:
    """One value with its label; ``key`` is its metadata key, if it has one."""

    label: str
    value: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Pairs under one title."""

    title: str
    pairs: tuple[Pair, ...]


# The groups in which metadata is shown, with the label of each key.
_GROUPS: Final[Mapping[str, Mapping[str, str]]] = {
    "User": {keys.USER: "user", keys.SESSION: "session"},
    "Version": {
        keys.APP_VERSION: "app_version",
        keys.DEPLOYMENT_ID: "deployment_id",
        keys.MODEL_ID: "model",
        keys.SOURCE_NAME: "entry point",
    },
    "Environment": {
        keys.ENVIRONMENT: "environment",
        keys.REGION: "region",
        keys.SOURCE_TYPE: "type",
        keys.OS_USER: "OS user",
    },
    "Git": {
        keys.GIT_COMMIT: "commit",
        keys.GIT_BRANCH: "branch",
        keys.GIT_DIRTY: "dirty",
        keys.GIT_REPO_URL: "repository",
    },
}
_SHOWN_ELSEWHERE: Final = frozenset({keys.SCHEMA_VERSION, keys.TRACE_INPUTS, keys.TRACE_OUTPUTS}).union(
    *_GROUPS.values()
)


def describe(trace: Trace) -> Iterator[Group]:
    """The request and the metadata of a trace in groups, of which some may be empty."""
    metadata = trace.info.trace_metadata
    yield Group("Request", _request(trace))
    for title, names in _GROUPS.items():
        yield Group(title, tuple(_pairs(metadata, names)))
    prefix = keys.FEATURE_FLAG_PREFIX
    flags = sorted(key for key in metadata if key.startswith(prefix))
    yield Group("Flags", tuple(_pairs(metadata, {key: key.removeprefix(prefix) for key in flags})))
    others = sorted(metadata.keys() - set(flags) - _SHOWN_ELSEWHERE)
    yield Group("Other", tuple(_pairs(metadata, {key: key for key in others})))


def tags_of(trace: Trace) -> dict[str, str]:
    """The tags except the one that holds the name."""
    return {key: value for key, value in sorted(trace.info.tags.items()) if key != keys.TRACE_NAME_TAG}


def _pairs(metadata: Mapping[str, str], names: Mapping[str, str]) -> Iterator[Pair]:
    return (Pair(label, metadata[key], key) for key, label in names.items() if key in metadata)


def _request(trace: Trace) -> tuple[Pair, ...]:
    attributes = {} if trace.root is None else trace.root.attributes
    pairs: list[tuple[str, Iterable[object]]] = [
        ("request id", [trace.info.client_request_id]),
        ("request", [" ".join(map(str, _present(attributes, "http.request.method", "url.path")))]),
        ("answer", _answer(attributes)),
        ("stream", _stream(attributes)),
        ("client", _present(attributes, "client.address", "user_agent.original")),
        ("left out", [f"{count} spans" for count in _present(attributes, "wherefrom.dropped_spans")]),
        ("experiment", [trace.info.experiment]),
    ]
    texts = [(label, ", ".join(str(part) for part in parts if part)) for label, parts in pairs]
    return tuple(Pair(label, text) for label, text in texts if text)


def _present(attributes: Mapping[str, Any], *names: str) -> Iterator[Any]:
    return (attributes[name] for name in names if name in attributes)


def _answer(attributes: Mapping[str, Any]) -> Iterator[object]:
    yield from _present(attributes, "http.response.status_code", "wherefrom.outcome")
    if (body := _number(attributes, "http.response.body.size")) is not None:
        yield size(int(body))
    for code in _present(attributes, "wherefrom.websocket.close_code"):
        yield f"close code {code}"
    yield from _present(attributes, "wherefrom.websocket.close_reason")


def _stream(attributes: Mapping[str, Any]) -> Iterator[str]:
    first = _number(attributes, "wherefrom.time_to_first_byte_ms")
    gap = _number(attributes, "wherefrom.response.longest_gap_ms")
    if first is not None:
        yield f"first byte after {duration(first * 1e6)}"
    if (chunks := _number(attributes, "wherefrom.response.chunks")) is not None:
        yield f"{chunks:,.0f} chunks"
    if gap is not None:
        yield f"longest gap {duration(gap * 1e6)}"
    for way in ("received", "sent"):
        messages = _number(attributes, f"wherefrom.websocket.messages_{way}")
        if messages is not None:
            amount = _number(attributes, f"wherefrom.websocket.bytes_{way}") or 0
            yield f"{messages:,.0f} messages {way} ({size(int(amount))})"


def _number(attributes: Mapping[str, Any], key: str) -> float | None:
    value = attributes.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
