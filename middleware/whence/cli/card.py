"""What a trace says of itself: its metadata in groups, its tags and its previews."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from rich.text import Text

from .. import keys
from ..model import Trace
from ..units import duration, size, spoken_moment
from ..visible import visible_lines
from .grid import Column, print_grid
from .listing import duration_ns, state_text
from .terminal import Terminal
from .text import styled

_MOST_LINES: Final = 4
_MOST_PREVIEW_LINES: Final = 6

Pairs = list[tuple[str, str]]

# The groups in which metadata is shown, and what each key is called there.
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


def print_card(terminal: Terminal, trace: Trace) -> None:
    """Print everything about a trace but its spans."""
    info = trace.info
    took = duration_ns(trace)
    headline = styled(info.name or "a trace without a name", "bold")
    headline.append("  ").append_text(state_text(info))
    terminal.paragraph(headline.append("" if took is None else f"  {duration(took)}"))
    terminal.paragraph(styled(f"{info.trace_id}  {spoken_moment(info.request_time)}", "dim"))
    terminal.line()
    rows = [
        [styled(title if at == 0 else "", "bold"), styled(label, "dim"), styled(value)]
        for title, pairs in _groups(trace)
        for at, (label, value) in enumerate(pairs)
    ]
    print_grid(terminal, (Column(11), Column(12), Column(12, wraps=True, most=_MOST_LINES)), rows)
    for title, preview in (("Request", info.request_preview), ("Response", info.response_preview)):
        if preview:
            terminal.line()
            terminal.line(f"{title} preview", style="bold")
            terminal.paragraph(Text("\n".join(visible_lines(preview))), indent=2, most=_MOST_PREVIEW_LINES)


def _groups(trace: Trace) -> Iterator[tuple[str, Pairs]]:
    info = trace.info
    metadata = info.trace_metadata
    yield "Request", _request(trace)
    for title, names in _GROUPS.items():
        yield title, [(label, metadata[key]) for key, label in names.items() if key in metadata]
    prefix = keys.FEATURE_FLAG_PREFIX
    flags = {key: value for key, value in metadata.items() if key.startswith(prefix)}
    yield "Flags", [(key.removeprefix(prefix), value) for key, value in sorted(flags.items())]
    others = metadata.keys() - flags.keys() - _SHOWN_ELSEWHERE
    yield "Other", [(key, metadata[key]) for key in sorted(others)]
    yield "Tags", [(key, value) for key, value in sorted(info.tags.items()) if key != keys.TRACE_NAME_TAG]


def _request(trace: Trace) -> Pairs:
    attributes = {} if trace.root is None else trace.root.attributes
    pairs: list[tuple[str, Iterable[object]]] = [
        ("request id", [trace.info.client_request_id]),
        ("request", [" ".join(map(str, _present(attributes, "http.request.method", "url.path")))]),
        ("answer", _answer(attributes)),
        ("stream", _stream(attributes)),
        ("client", _present(attributes, "client.address", "user_agent.original")),
        ("left out", [f"{count} spans" for count in _present(attributes, "whence.dropped_spans")]),
        ("experiment", [trace.info.experiment]),
    ]
    texts = [(label, ", ".join(str(part) for part in parts if part)) for label, parts in pairs]
    return [(label, text) for label, text in texts if text]


def _present(attributes: Mapping[str, Any], *names: str) -> Iterator[Any]:
    return (attributes[name] for name in names if name in attributes)


def _answer(attributes: Mapping[str, Any]) -> Iterator[object]:
    yield from _present(attributes, "http.response.status_code", "whence.outcome")
    if (body := _number(attributes, "http.response.body.size")) is not None:
        yield size(int(body))
    for code in _present(attributes, "whence.websocket.close_code"):
        yield f"close code {code}"
    yield from _present(attributes, "whence.websocket.close_reason")


def _stream(attributes: Mapping[str, Any]) -> Iterator[str]:
    first = _number(attributes, "whence.time_to_first_byte_ms")
    gap = _number(attributes, "whence.response.longest_gap_ms")
    if first is not None:
        yield f"first byte after {duration(first * 1e6)}"
    if (chunks := _number(attributes, "whence.response.chunks")) is not None:
        yield f"{chunks:,.0f} chunks"
    if gap is not None:
        yield f"longest gap {duration(gap * 1e6)}"
    for way in ("received", "sent"):
        messages = _number(attributes, f"whence.websocket.messages_{way}")
        if messages is not None:
            amount = _number(attributes, f"whence.websocket.bytes_{way}") or 0
            yield f"{messages:,.0f} messages {way} ({size(int(amount))})"


def _number(attributes: Mapping[str, Any], key: str) -> float | None:
    value = attributes.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
