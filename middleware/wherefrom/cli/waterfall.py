"""The span tree with a waterfall: who called whom, when each began and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from .._units import duration
from ..analysis.span_tree import Branch, branches_of
from ..model import Span, SpanStatusCode, SpanType
from .grid import Column, print_grid
from .terminal import Terminal
from .text import styled

_MARKS: Final = {
    SpanStatusCode.OK: ("✓", "green"),
    SpanStatusCode.ERROR: ("✗", "bold red"),
    SpanStatusCode.UNSET: ("·", "dim"),
}
_OPEN_MARK: Final = ("…", "yellow")
_BAR_STYLES: Final = {SpanStatusCode.ERROR: "red"}
_PIPE_BAR: Final = 40
_LEAST_BAR: Final = 12
_DEEPEST: Final = 12
_ROOM_FOR_START: Final = 100


def print_waterfall(terminal: Terminal, spans: Sequence[Span]) -> None:
    """Print one line a span, in the order of the tree."""
    branches = list(branches_of(spans))
    begin = min(span.start_time_ns for span in spans)
    end = max(max(span.start_time_ns, span.end_time_ns or 0) for span in spans)
    scale = _Scale(begin, max(end - begin, 1), _bar_width(terminal))
    columns = [Column(12), Column(is_right=True), Column(is_right=True), Column(scale.width)]
    header = ["Spans", "start", "took", scale.header()]
    rows = [
        [_name(branch), _start(branch.span, begin), _duration(branch.span), scale.bar(branch.span)]
        for branch in branches
    ]
    if terminal.room is not None and terminal.room < _ROOM_FOR_START:
        rows = [[name, took, bar] for name, _, took, bar in rows]
        del columns[1], header[1]
    print_grid(terminal, columns, rows, header=header)


def _name(branch: Branch) -> Text:
    span = branch.span
    mark, style = _MARKS[span.status.code] if span.end_time_ns is not None else _OPEN_MARK
    guides = _guides(branch)
    kind = "" if span.span_type in {SpanType.UNKNOWN, ""} else f"  {span.span_type}"
    return Text.assemble((mark, style), " ", (guides, "dim"), styled(span.name), styled(kind, "dim"))


def _guides(branch: Branch) -> str:
    """The lines that lead to a span from the one above it."""
    if not branch.lasts:
        return ""
    corner = "└─ " if branch.lasts[-1] else "├─ "
    if branch.depth > _DEEPEST:
        return f"…{branch.depth} deep {corner}"
    return "".join("   " if is_last else "│  " for is_last in branch.lasts[:-1]) + corner


def _start(span: Span, begin: int) -> Text:
    return Text(f"+{duration(span.start_time_ns - begin)}", style="dim")


def _duration(span: Span) -> Text:
    if span.end_time_ns is None:
        return Text("open", style="yellow")
    return Text(duration(span.end_time_ns - span.start_time_ns))


def _bar_width(terminal: Terminal) -> int:
    return _PIPE_BAR if terminal.room is None else max(terminal.room * 2 // 5, _LEAST_BAR)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps ``total`` ns from ``begin`` on to ``width`` cells."""

    begin: int
    total: int
    width: int

    def bar(self, span: Span) -> Text:
        """A bar of at least one cell; of a span that never ended, one to the right-hand edge."""
        first = min((span.start_time_ns - self.begin) * self.width // self.total, self.width - 1)
        end = span.end_time_ns
        last = self.width if end is None else -((self.begin - end) * self.width // self.total)
        length = min(max(last - first, 1), self.width - first)
        style = _BAR_STYLES.get(span.status.code, "blue") if end is not None else "yellow"
        return Text.assemble(" " * first, ("━" * length, style))

    def header(self) -> str:
        """Zero on the left, the whole time on the right."""
        whole = duration(self.total)
        return f"0{whole:>{self.width - 1}}"
