"""What went wrong in a trace: each exception once, where it was raised, with the end of its stack."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from .._sanitize import visible_lines
from .._units import counted
from ..analysis.description import Failure, frames_of
from .terminal import Terminal
from .text import styled

_MOST: Final = 5
_STACK_LINES: Final = 8
_MESSAGE_LINES: Final = 6


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
    lines = [line for line in visible_lines(frames_of(failure)) if not _is_marker(line)]
    if len(lines) > _STACK_LINES:
        terminal.line("  ...", style="dim")
    for line in lines[-_STACK_LINES:]:
        terminal.paragraph(line, indent=2, style="dim", most=2)


def _is_marker(line: str) -> bool:
    """Whether a line is empty, or underlines a part of the one before: that one may be cut."""
    return not line.strip(" ^~")
