"""Columns of text: cut or wrapped to the room there is on a terminal, whole in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.text import Text

from .terminal import Terminal, fitted

_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column: ``floor`` is how narrow it may become; a cell that is longer is wrapped or else cut.

    ``most`` is how many lines a wrapped cell may take on a terminal.
    """

    floor: int = 8
    wraps: bool = False
    most: int | None = None
    is_right: bool = False


def print_grid(
    terminal: Terminal,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Text]],
    *,
    header: Sequence[str] | None = None,
    indent: int = 0,
) -> None:
    """Print rows in columns, as wide as their widest cell where the room allows."""
    rows = list(rows)
    if header is not None:
        rows.insert(0, [Text(title, style="bold") for title in header])
    natural = [max((row[at].cell_len for row in rows), default=0) for at in range(len(columns))]
    floors = [min(wish, column.floor) for wish, column in zip(natural, columns, strict=True)]
    room = None if terminal.room is None else terminal.room - indent
    widths = fitted(natural, floors, room, _GAP)
    for row in rows:
        for line in _lines(terminal, columns, row, widths):
            terminal.line(Text(" " * indent) + line)


def _lines(
    terminal: Terminal, columns: Sequence[Column], row: Sequence[Text], widths: Sequence[int]
) -> Iterable[Text]:
    cells = [_cell(terminal, *of) for of in zip(columns, row, widths, strict=True)]
    for parts in zip_longest(*cells, fillvalue=Text()):
        line = Text()
        for at, (part, width) in enumerate(zip(parts, widths, strict=True)):
            blank = " " * (width - part.cell_len)
            line.append(" " * _GAP if at else "")
            line.append_text(Text(blank) + part if columns[at].is_right else part + Text(blank))
        yield line


def _cell(terminal: Terminal, column: Column, text: Text, width: int) -> list[Text]:
    if column.wraps:
        return terminal.wrapped(text, None if terminal.room is None else width, column.most)
    cut = text.copy()
    cut.truncate(width, overflow="ellipsis")
    return [cut]
