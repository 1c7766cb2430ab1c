"""One trace: its exceptions, its metadata in groups, and its tags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .. import keys
from .._units import dollars, duration, size
from ..messages.content import Usage
from ..model import Span, SpanEvent, SpanStatusCode, Trace
from .model_calls import ModelCalls, calls_of_trace
from .services import Service, services_in
from .stack_traces import Raised, read_stack

_EVENT: Final = "exception"
_SHORT_COMMIT: Final = 7
_SHORT_INSTANCE: Final = 8


@dataclass(slots=True)
class Failure:
    """One exception with the spans it left, each an ancestor of the one before; ``kind`` is its type.

    A span that failed without an exception has a failure without ``kind`` and ``stack``. ``origin`` is the
    id of the first span, ``place`` that of the last one.
    """

    kind: str
    message: str
    stack: str
    spans: list[str] = field(default_factory=list)
    origin: str = ""
    place: str = ""

    @property
    def raised(self) -> list[Raised]:
        """The exceptions in the stack: the failure, members of its group, then causes, the nearest first."""
        return read_stack(self.stack)


def failures_of(spans: Sequence[Span]) -> list[Failure]:
    """The failures in the order in which they happened; an exception that leaves several spans counts once.

    Equal exceptions of spans that are no ancestors of one another are several failures.
    """
    recorded = [(*_of_event(event), span) for span in spans for event in span.events if is_exception(event)]
    recorded += [(*_of_status(span), span) for span in spans if _fails_without_exception(span)]
    if not recorded:
        return []
    parents = {span.span_id: span.parent_id for span in spans}
    paths = {span.span_id: list(_path(span.span_id, parents)) for *_, span in recorded}
    # Within one tick of the clock an exception leaves the inner span first.
    recorded.sort(key=lambda one: (one[0], -len(paths[one[-1].span_id])))
    found: list[Failure] = []
    alike: dict[tuple[str, str], dict[str, Failure]] = {}
    for _, kind, message, stack, span in recorded:
        last = alike.setdefault((kind, message), {})
        failure = last.pop(span.span_id, None)
        if failure is None:
            failure = Failure(kind, message, stack, origin=span.span_id)
            found.append(failure)
        if not failure.spans or failure.place != span.span_id:
            failure.spans.append(span.name)
            failure.place = span.span_id
        last.update(dict.fromkeys(paths[span.span_id], failure))
    return found


def _path(span_id: str, parents: Mapping[str, str | None]) -> Iterator[str]:
    """The span and its ancestors; a cycle is followed once."""
    seen: set[str] = set()
    place: str | None = span_id
    while place is not None and place in parents and place not in seen:
        seen.add(place)
        yield place
        place = parents[place]


def is_exception(event: SpanEvent) -> bool:
    """Whether the event records an exception, by OpenTelemetry's conventions."""
    return event.name == _EVENT


def _of_event(event: SpanEvent) -> tuple[int, str, str, str]:
    names = (f"{_EVENT}.type", f"{_EVENT}.message", f"{_EVENT}.stacktrace")
    kind, message, stack = (str(event.attributes.get(name, "")) for name in names)
    return event.timestamp, kind, message, stack


def _of_status(span: Span) -> tuple[int, str, str, str]:
    return span.end_time_ns or span.start_time_ns, "", span.status.description, ""


def _fails_without_exception(span: Span) -> bool:
    """Whether a span failed with a message and without an exception."""
    has_event = any(map(is_exception, span.events))
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
_SHOWN_ELSEWHERE: Final = frozenset(
    {keys.SCHEMA_VERSION, keys.TRACE_INPUTS, keys.TRACE_OUTPUTS, keys.PART, keys.PART_EDITS}
    | {keys.TOKEN_USAGE, keys.COST, keys.MODELS, keys.FIRST_TOKEN}
).union(*_GROUPS.values())


def describe(trace: Trace, calls: ModelCalls | None = None) -> Iterator[Group]:
    """The request and the metadata of a trace in groups, some of them empty.

    ``calls`` are its model calls, if they are known already.
    """
    metadata = trace.info.trace_metadata
    yield Group("Request", _request(trace))
    yield Group("Services", tuple(Pair(one.name, _spell_service(one)) for one in services_in(trace)[0]))
    yield Group("Model calls", tuple(_model_calls(calls or calls_of_trace(trace))))
    for title, names in _GROUPS.items():
        yield Group(title, tuple(_pairs(metadata, names)))
    prefix = keys.FEATURE_FLAG_PREFIX
    flags = sorted(key for key in metadata if key.startswith(prefix))
    yield Group("Flags", tuple(_pairs(metadata, {key: key.removeprefix(prefix) for key in flags})))
    others = sorted(metadata.keys() - set(flags) - _SHOWN_ELSEWHERE)
    yield Group("Other", tuple(_pairs(metadata, {key: key for key in others})))


def _spell_service(service: Service) -> str:
    """``2 spans, version 1.4.0, deployment blue, commit 1a2b3c4, instance 5d6e7f80``."""
    parts = (
        ("version", service.version),
        ("deployment", service.deployment),
        ("commit", service.commit and service.commit[:_SHORT_COMMIT]),
        ("instance", service.instance and service.instance[:_SHORT_INSTANCE]),
    )
    known = [f"{name} {value}" for name, value in parts if value and value != "unknown"]
    return ", ".join([_several(service.spans, "span"), *known])


def _model_calls(calls: ModelCalls) -> Iterator[Pair]:
    if calls.models:
        yield Pair("models", ", ".join(calls.models))
    if calls.usage is not None:
        yield Pair("tokens", spell_usage(calls.usage))
        yield Pair("cost", spell_cost(calls))
    if calls.first_token_ms is not None:
        yield Pair("first token", f"after {duration(calls.first_token_ms * 1e6)}")


def spell_usage(usage: Usage) -> str:
    """``1,000 in (400 from the cache), 20 out``, or ``1,020 in all`` where only that is known."""
    if not usage.input_tokens and not usage.output_tokens:
        return f"{usage.total_tokens:,} in all"
    cached = f" ({usage.cache_read_input_tokens:,} from the cache)" if usage.cache_read_input_tokens else ""
    return f"{usage.input_tokens:,} in{cached}, {usage.output_tokens:,} out"


def spell_cost(calls: ModelCalls) -> str:
    """``$0.0035``, ``$0.0035 without my-model`` or ``no price for my-model``."""
    cost = "" if calls.cost is None else dollars(calls.cost)
    if not calls.unpriced:
        return cost
    names = ", ".join(calls.unpriced)
    return f"{cost} without {names}" if cost else f"no price for {names}"


def assessments_of(trace: Trace) -> Iterator[tuple[str, str]]:
    """Name of each feedback, and its value, source and comment as one text; without what is overridden."""
    for one in trace.info.assessments:
        if one.valid:
            source = one.source.source_type.value.lower().replace("_", " ")
            by = one.source.source_id if one.source.source_id not in {None, "default"} else ""
            value = one.text if one.error is None else one.error.error_message or one.error.error_code
            said = f": {one.rationale}" if one.rationale else ""
            on = f", on span {one.span_id}" if one.span_id else ""
            yield one.name, f"{value} ({f'{source} {by}'.strip()}{on}){said}"


def tags_of(trace: Trace) -> dict[str, str]:
    """The tags without the one for the name."""
    return {key: value for key, value in sorted(trace.info.tags.items()) if key != keys.TRACE_NAME_TAG}


def _pairs(metadata: Mapping[str, str], names: Mapping[str, str]) -> Iterator[Pair]:
    return (Pair(label, metadata[key], key) for key, label in names.items() if key in metadata)


def _request(trace: Trace) -> tuple[Pair, ...]:
    attributes = {} if trace.root is None else trace.root.attributes
    pairs: list[tuple[str, Iterable[object]]] = [
        ("request id", [trace.info.client_request_id]),
        ("request", [" ".join(map(str, _present(attributes, "http.request.method", "url.path")))]),
        ("response", _response(attributes)),
        ("stream", _stream(attributes)),
        ("client", _present(attributes, "client.address", "user_agent.original")),
        ("dropped", [_several(count, "span") for count in _present(attributes, "wherefrom.dropped_spans")]),
        ("experiment", [trace.info.experiment]),
    ]
    texts = [(label, ", ".join(str(part) for part in parts if part)) for label, parts in pairs]
    return tuple(Pair(label, text) for label, text in texts if text)


def _present(attributes: Mapping[str, Any], *names: str) -> Iterator[Any]:
    return (attributes[name] for name in names if name in attributes)


def _response(attributes: Mapping[str, Any]) -> Iterator[object]:
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
        yield _several(f"{chunks:,.0f}", "chunk")
    if gap is not None:
        yield f"longest gap {duration(gap * 1e6)}"
    for way in ("received", "sent"):
        messages = _number(attributes, f"wherefrom.websocket.messages_{way}")
        if messages is not None:
            amount = _number(attributes, f"wherefrom.websocket.bytes_{way}") or 0
            yield f"{_several(f'{messages:,.0f}', 'message')} {way} ({size(int(amount))})"


def _several(count: object, noun: str) -> str:
    """``1 span``, ``2 spans``; the count may be anything, as attributes come from elsewhere."""
    return f"{count} {noun}{'' if str(count) == '1' else 's'}"


def _number(attributes: Mapping[str, Any], key: str) -> float | None:
    value = attributes.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
