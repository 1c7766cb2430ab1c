"""What went wrong in a trace: each exception once, where it was raised, with the end of its stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

from rich.text import Text

from ..model import Span, SpanEvent, SpanStatusCode
from ..units import counted
from ..visible import visible_lines
from .terminal import Terminal
from .text import styled

_EVENT: Final = "exception"
_MOST: Final = 5
_STACK_LINES: Final = 8
_STACK_TITLE: Final = "Traceback (most recent call last):"
_MESSAGE_LINES: Final = 6


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


def print_failures(terminal: Terminal, failures: list[Failure]) -> None:
    """Print the first of them; the JSON has the rest."""
    for failure in failures[:_MOST]:
        terminal.line()
        _print_failure(terminal, failure)
    if len(failures) > _MOST:
        terminal.line()
        terminal.line(f"and {counted(len(failures) - _MOST, 'failure')} more: --json has them", style="dim")


def _print_failure(terminal: Terminal, failure: Failure) -> None:
    first, *rest = visible_lines(failure.message)
    colon = ": " if failure.kind and first else ""
    title = Text.assemble(
        styled(failure.kind, "bold red"), colon, (first, "" if failure.kind else "bold red")
    )
    terminal.paragraph(title, most=_MESSAGE_LINES)
    for line in rest[:_MESSAGE_LINES]:
        terminal.paragraph(line, indent=2)
    terminal.paragraph(styled("in " + ", then ".join(failure.spans), "dim"), indent=2, most=2)
    lines = [line for line in visible_lines(_frames(failure)) if not _is_marker(line)]
    if len(lines) > _STACK_LINES:
        terminal.line("  ...", style="dim")
    for line in lines[-_STACK_LINES:]:
        terminal.paragraph(line, indent=2, style="dim", most=2)


def _frames(failure: Failure) -> str:
    """The stack of what was raised last, without the lines that say again what it was."""
    stack = failure.stack.rpartition(_STACK_TITLE)[2].strip("\n").rstrip()
    for ending in (f"{failure.kind}: {failure.message}", failure.kind):
        if ending and stack.endswith("\n" + ending.rstrip()):
            return stack.removesuffix(ending.rstrip()).rstrip()
    return stack


def _is_marker(line: str) -> bool:
    """Whether a line is empty, or underlines a part of the one before: that one may be cut."""
    return not line.strip(" ^~")


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
