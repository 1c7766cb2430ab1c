"""Traces that move between the store and a server: how far it has come, and what could not be moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import typer
from rich.text import Text

from .._units import counted
from .terminal import Terminal, remark
from .text import styled

if TYPE_CHECKING:
    from ..exporters.delivery import Refused

_MOST: Final = 20

Report = Callable[[float, str], None]


@dataclass(slots=True)
class Tally:
    """What became of traces: ``moved``, ``there`` already, or refused."""

    moved: int = 0
    there: int = 0
    refused: list[Refused] = field(default_factory=list)

    def add(self, moved: int, there: int, refused: Iterable[Refused]) -> None:
        """Count some more."""
        self.moved += moved
        self.there += there
        self.refused += refused

    def __str__(self) -> str:
        there = f", {self.there:,} there already" if self.there else ""
        return counted(self.moved, "trace") + there

    def close(self, where: str) -> None:
        """Say how it went; ``where`` follows the count. When a trace was refused the command ends with 1.

        Raises:
            Exit: some were refused.
        """
        remark(f"{self} {where}.")
        if not self.refused:
            return
        terminal = Terminal(stderr=True)
        terminal.line(f"{counted(len(self.refused), 'trace')} could not be moved:", style="red")
        for refused in self.refused[:_MOST]:
            named = Text.assemble(styled(refused.trace_id, "cyan"), "  ", styled(refused.reason))
            terminal.paragraph(named, indent=2, most=3)
        if len(self.refused) > _MOST:
            terminal.line(f"  and {len(self.refused) - _MOST:,} more", style="dim")
        raise typer.Exit(1)


@contextmanager
def progress(title: str, *, is_shown: bool = True) -> Iterator[Report]:
    """A bar on standard error, where that is a terminal and nothing else is written there."""
    terminal = Terminal(stderr=True)
    if is_shown and terminal.room is not None:
        with terminal.progress(title) as report:
            yield report
    else:
        yield lambda *_: None
