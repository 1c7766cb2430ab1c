"""What a trace says of itself: its metadata in groups, its tags and its previews."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.text import Text

from .._sanitize import visible_lines
from .._units import duration, spoken_moment
from ..analysis.description import describe, tags_of
from ..model import Trace
from .grid import Column, print_grid
from .listing import state_text
from .terminal import Terminal
from .text import styled

_MOST_LINES: Final = 4
_MOST_PREVIEW_LINES: Final = 6

Pairs = list[tuple[str, str]]


def print_card(terminal: Terminal, trace: Trace) -> None:
    """Print everything about a trace but its spans."""
    info = trace.info
    took = trace.duration_ns
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
    for group in describe(trace):
        yield group.title, [(pair.label, pair.value) for pair in group.pairs]
    yield "Tags", list(tags_of(trace).items())
