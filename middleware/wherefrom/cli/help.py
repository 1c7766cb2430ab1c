"""Help that people can learn from: examples, and tables made from the code, below what typer prints."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from .terminal import Terminal

Examples = tuple[tuple[str, str], ...]


class WithExamples:
    """Mixed into a command: its help goes on with examples and, in a subclass, tables."""

    examples: Examples = ()
    closing = ""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        super().format_help(ctx, formatter)  # type: ignore[misc]
        terminal = Terminal()
        terminal.line(" Examples", style="bold")
        for command, what in self.examples:
            terminal.paragraph(f"# {what}", indent=2, style="dim")
            terminal.line(f"  {command}", style="cyan")
        self.print_tables(terminal)
        if self.closing:
            terminal.line()
            terminal.paragraph(self.closing, indent=1)
        terminal.line()

    def print_tables(self, terminal: Terminal) -> None:
        """Print what else there is to know, after the examples."""


class Documented(WithExamples, TyperCommand):
    """A command with examples in its help."""


def print_section(terminal: Terminal, title: str, remark: str = "") -> None:
    """Print a title, after an empty line, and what there is to say about it."""
    terminal.line()
    terminal.line(f" {title}", style="bold")
    if remark:
        terminal.paragraph(remark, indent=2, style="dim")
