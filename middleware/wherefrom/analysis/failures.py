"""What went wrong in a trace: each exception once, where it was raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

from ..model import Span, SpanEvent, SpanStatusCode

_EVENT: Final = "exception"
_STACK_TITLE: Final = "Traceback (most recent call last):"


@dataclass(slots=True)
class Failure:
    """One exception, and the spans that it passed through, the innermost first; ``kind`` is its type.

    A span that failed without an exception has a failure with neither ``kind`` nor ``stack``.
    """

    kind: str
    message: str
    stack: str
    spans: list[str] = field(default_factory=list)


def failures_of(spans: Sequence[Span]) -> list[Failure]:
    """The failures in the order in which they happened; the same one in several spans is one."""
    recorded = [(*_of_event(event), span) for span in spans for event in span.events if event.name == _EVENT]
    recorded += [(*_of_status(span), span) for span in spans if _is_told_by_status(span)]
    found: dict[tuple[str, str], Failure] = {}
    for _, kind, message, stack, span in sorted(recorded, key=itemgetter(0)):
        failure = found.setdefault((kind, message), Failure(kind, message, stack))
        if span.name not in failure.spans:
            failure.spans.append(span.name)
    return list(found.values())


def frames_of(failure: Failure) -> str:
    """The stack of what was raised last, without the lines that say again what it was."""
    stack = failure.stack.rpartition(_STACK_TITLE)[2].strip("\n").rstrip()
    for ending in (f"{failure.kind}: {failure.message}", failure.kind):
        if ending and stack.endswith("\n" + ending.rstrip()):
            return stack.removesuffix(ending.rstrip()).rstrip()
    return stack


def _of_event(event: SpanEvent) -> tuple[int, str, str, str]:
    told = (str(event.attributes.get(f"{_EVENT}.{name}", "")) for name in ("type", "message", "stacktrace"))
    kind, message, stack = told
    return event.timestamp, kind, message, stack


def _of_status(span: Span) -> tuple[int, str, str, str]:
    return span.end_time_ns or span.start_time_ns, "", span.status.description, ""


def _is_told_by_status(span: Span) -> bool:
    """Whether a span failed without an exception, and says why."""
    has_event = any(event.name == _EVENT for event in span.events)
    return span.status.code is SpanStatusCode.ERROR and bool(span.status.description) and not has_event
