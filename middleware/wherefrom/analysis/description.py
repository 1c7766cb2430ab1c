"""One trace: its exceptions, its metadata in groups, its tags, and its span tree with own times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .. import keys
from .._units import dollars, duration, size
from ..messages.content import Usage
from ..model import Span, SpanEvent, SpanStatusCode, Trace
from .model_calls import ModelCalls, calls_of_trace

_EVENT: Final = "exception"
_STACK_TITLE: Final = "Traceback (most recent call last):"


@dataclass(slots=True)
class Failure:
    """One exception with the spans it left, each an ancestor of the one before; ``kind`` is its type.

    A span that failed without an exception has a failure without ``kind`` and ``stack``. ``place`` is the id
    of the last span.
    """

    kind: str
    message: str
    stack: str
    spans: list[str] = field(default_factory=list)
    place: str = ""

    @property
    def raised(self) -> list[Raised]:
        """The exceptions in the stack: the failure, members of its group, then causes, the nearest first."""
        return _raised_in(self.stack)


def failures_of(spans: Sequence[Span]) -> list[Failure]:
    """The failures in the order in which they happened; an exception that leaves several spans counts once.

    Equal exceptions of spans that are no ancestors of one another are several failures.
    """
    depths = {branch.span.span_id: branch.depth for branch in branches_of(spans)}
    recorded = [(*_of_event(event), span) for span in spans for event in span.events if event.name == _EVENT]
    recorded += [(*_of_status(span), span) for span in spans if _fails_without_exception(span)]
    # Within one tick of the clock an exception leaves the inner span first.
    recorded.sort(key=lambda one: (one[0], -depths[one[-1].span_id]))
    parents = {span.span_id: span.parent_id for span in spans}
    found: list[Failure] = []
    last: dict[tuple[str, str, str], Failure] = {}
    for _, kind, message, stack, span in recorded:
        failure = last.pop((kind, message, span.span_id), None)
        if failure is None:
            failure = Failure(kind, message, stack)
            found.append(failure)
        if not failure.spans or failure.place != span.span_id:
            failure.spans.append(span.name)
            failure.place = span.span_id
        for ancestor in _path(span.span_id, parents):
            last[kind, message, ancestor] = failure
    return found


def _path(span_id: str, parents: Mapping[str, str | None]) -> Iterator[str]:
    """The span and its ancestors; a cycle is followed once."""
    seen: set[str] = set()
    place: str | None = span_id
    while place is not None and place in parents and place not in seen:
        seen.add(place)
        yield place
        place = parents[place]


@dataclass(frozen=True, slots=True)
class Raised:
    """One exception of a stack: the failure itself, one of its causes, or a member of a group.

    ``relation`` is how it is related to the failure, such as ``caused by``; it is empty for the failure
    itself. ``text`` is type and message, and ``frames`` are the lines of its stack.
    """

    relation: str
    text: str
    frames: tuple[str, ...]

    @property
    def title(self) -> str:
        """The first line of type and message."""
        return self.text.partition("\n")[0]


def _raised_in(stack: str) -> list[Raised]:
    """Read a stack in the form of Python's ``traceback``, from any tracer."""
    found: list[tuple[int, str, Raised]] = []
    relation = ""
    for block, separator in _blocks(stack):
        raised = _raised(block)
        if raised is not None:
            found.append((_margin(block), _FOLLOWING.get(separator, ""), raised))
    if not found:
        return []
    own = max((place for place, (margin, _, _) in enumerate(found) if margin <= _OUTER), default=0)
    causes = []
    for margin, following, raised in found[:own][::-1]:
        relation = following if margin <= _OUTER else _IN_CAUSE
        causes.append(Raised(relation or _IN_CAUSE, raised.text, raised.frames))
    members = [Raised(_MEMBER, raised.text, raised.frames) for _, _, raised in found[own + 1 :]]
    return [found[own][2], *members, *causes]


_FOLLOWING: Final = {
    "The above exception was the direct cause of the following exception:": "caused by",
    "During handling of the above exception, another exception occurred:": "while handling",
}
_MEMBER: Final = "in the group"
_IN_CAUSE: Final = "before"
_OUTER: Final = 3  # the margin of a group that is no member of another
_MARGIN: Final = re.compile(r" *[|+] ?")
_MEMBER_LINE: Final = re.compile(r" *(?:\+-)?\+-{16}[-. \d]*")


def _blocks(stack: str) -> Iterator[tuple[list[str], str]]:
    """The lines of each exception, with the line that separates it from the next one."""
    block: list[str] = []
    for line in stack.splitlines():
        bare = _bare(line)
        if bare in _FOLLOWING or _MEMBER_LINE.fullmatch(line):
            yield block, bare
            block = []
            continue
        if bare.endswith(_STACK_TITLE) and any(map(str.strip, block)):
            yield block, ""
            block = []
        block.append(line)
    yield block, ""


def _bare(line: str) -> str:
    return line[_margin([line]) :]


def _margin(block: Sequence[str]) -> int:
    found = _MARGIN.match(block[0]) if block else None
    return 0 if found is None else found.end()


def _raised(block: Sequence[str]) -> Raised | None:
    """Read one exception: its title, indented lines of frames, and then type and message."""
    lines = [bare for line in block if (bare := _bare(line).rstrip())]
    if lines and lines[0].endswith(_STACK_TITLE):
        del lines[0]
    count = next((place for place, line in enumerate(lines) if not line.startswith("  ")), len(lines))
    return Raised("", "\n".join(lines[count:]), tuple(lines[:count])) if lines else None


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
_SHOWN_ELSEWHERE: Final = frozenset(
    {keys.SCHEMA_VERSION, keys.TRACE_INPUTS, keys.TRACE_OUTPUTS}
    | {keys.TOKEN_USAGE, keys.COST, keys.MODELS, keys.FIRST_TOKEN}
).union(*_GROUPS.values())


def describe(trace: Trace) -> Iterator[Group]:
    """The request and the metadata of a trace in groups, some of them empty."""
    metadata = trace.info.trace_metadata
    yield Group("Request", _request(trace))
    yield Group("Model calls", tuple(_model_calls(calls_of_trace(trace))))
    for title, names in _GROUPS.items():
        yield Group(title, tuple(_pairs(metadata, names)))
    prefix = keys.FEATURE_FLAG_PREFIX
    flags = sorted(key for key in metadata if key.startswith(prefix))
    yield Group("Flags", tuple(_pairs(metadata, {key: key.removeprefix(prefix) for key in flags})))
    others = sorted(metadata.keys() - set(flags) - _SHOWN_ELSEWHERE)
    yield Group("Other", tuple(_pairs(metadata, {key: key for key in others})))


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


@dataclass(frozen=True, slots=True)
class Branch:
    """A span in the tree; ``lasts`` has, for each span on the path to it, whether it is the last child."""

    span: Span
    lasts: tuple[bool, ...]

    @property
    def depth(self) -> int:
        """The number of its ancestors."""
        return len(self.lasts)


def branches_of(spans: Sequence[Span]) -> Iterator[Branch]:
    """The spans depth first, siblings by start time; each span occurs once, whatever its parent is."""
    known = {span.span_id for span in spans}
    in_order = sorted(spans, key=lambda span: span.start_time_ns)
    children: dict[str | None, list[Span]] = {}
    for span in in_order:
        children.setdefault(span.parent_id, []).append(span)
    seen: set[str] = set()
    tops = [span for span in in_order if span.parent_id not in known]
    # A span that no top leads to is part of a cycle, and becomes a top.
    for top in (*tops, *in_order):
        yield from _below(top, children, seen)


def _below(top: Span, children: dict[str | None, list[Span]], seen: set[str]) -> Iterator[Branch]:
    stack: list[tuple[Span, tuple[bool, ...]]] = [(top, ())]
    while stack:
        span, lasts = stack.pop()
        if span.span_id in seen:
            continue
        seen.add(span.span_id)
        yield Branch(span, lasts)
        below = [child for child in children.get(span.span_id, ()) if child.span_id not in seen]
        stack += ((child, (*lasts, child is below[-1])) for child in reversed(below))


def own_times(span: Span, children: Sequence[Span], now_ns: int) -> list[tuple[int, int]]:
    """The intervals of a span's own time, as start and end in ns since the epoch.

    A span that has not ended counts as running until ``now_ns``.
    """
    position, end = span.start_time_ns, _end(span, now_ns)
    found = []
    for begin, over in sorted((child.start_time_ns, _end(child, now_ns)) for child in children):
        if begin > position:
            found.append((position, min(begin, end)))
        position = max(position, over)
        if position >= end:
            break
    if position < end:
        found.append((position, end))
    return [(begin, over) for begin, over in found if begin < over]


def _end(span: Span, now_ns: int) -> int:
    return max(now_ns if span.end_time_ns is None else span.end_time_ns, span.start_time_ns)
