"""Output: tables and text fitted to the terminal, which they cannot control; pipes get whole lines."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import orjson
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from .._sanitize import visible, visible_json, visible_lines, without_secrets

_ASCII: Final = {
    "…": "~", "━": "=", "─": "-", "│": "|", "├": "+", "└": "`", "✓": "+", "✗": "x", "·": ".", "µ": "u",
    "\N{EN DASH}": "-",
}  # fmt: skip
_ERROR_HANDLER: Final = "wherefrom-plain"
_UNLIMITED: Final = 1 << 30
_GAP: Final = 2
_NARROWEST: Final = 8

Item = TypeVar("Item")


class Terminal:
    """Standard output or standard error.

    ``room`` is the number of columns, ``None`` in a pipe.
    """

    def __init__(self, *, stderr: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=stderr, highlight=False, markup=False, emoji=False)
        self.room = self._console.width if self._console.is_terminal else None

    def line(self, text: Text | str = "", style: str = "") -> None:
        """Print one line as it is, however long."""
        shown = Text(text, style=style) if isinstance(text, str) else text
        shown.rstrip()
        self._console.print(shown, soft_wrap=True)

    def title(self, text: str) -> None:
        """Print a heading after an empty line."""
        self.line()
        self.line(text, style="bold")

    def show(self, renderable: RenderableType, indent: int = 0, *, is_fitted: bool = True) -> None:
        """Print a table or text, fitted to the width of a terminal, without blanks at the ends of lines."""
        width = max(self.room - indent, 1) if is_fitted and self.room is not None else _UNLIMITED
        options = self._console.options.update(width=width)
        # Not ``render_lines``, which crops what is wider than a very narrow terminal.
        for segments in Segment.split_lines(self._console.render(renderable, options)):
            self.line(Text.assemble(" " * indent, *((each.text, each.style or "") for each in segments)))

    def paragraph(
        self, text: Text | str, *, indent: int = 0, style: str = "", most: int | None = None
    ) -> None:
        """Print text wrapped to the width of a terminal, at most ``most`` lines of it there."""
        self.show(Wrapped(Text(text, style=style) if isinstance(text, str) else text, most), indent)

    def busy(self, message: str) -> AbstractContextManager[object]:
        """Show a spinner on a terminal until the block ends."""
        return nullcontext() if self.room is None else self._console.status(message)

    @contextmanager
    def status(self, message: str) -> Iterator[Callable[[str], None]]:
        """A spinner on a terminal; the callable takes another message."""
        if self.room is None:
            yield lambda _: None
            return
        with self._console.status(Text(message)) as status:
            yield lambda text: status.update(Text(text))

    @contextmanager
    def progress(self, title: str, *, is_shown: bool = True) -> Iterator[Callable[[float, str], None]]:
        """A progress bar on a terminal; the callable takes the share done, 0 to 1, and a remark."""
        if self.room is None or not is_shown:
            yield lambda *_: None
            return
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        remark = TextColumn("{task.description}", markup=False)
        columns = (TextColumn(title), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), remark)
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task("", total=1.0)
            yield lambda done, description: bar.update(task, completed=done, description=description)


@dataclass(frozen=True, slots=True)
class Wrapped:
    """Text wrapped to the available width; on a terminal, ``…`` ends it after ``most`` lines."""

    text: Text
    most: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = list(self.text.wrap(console, options.max_width, overflow="fold"))
        if self.most is not None and len(lines) > self.most and console.is_terminal:
            del lines[self.most :]
            lines[-1].rstrip()
            lines[-1].truncate(max(options.max_width - 1, 1))
            lines[-1].append("…", style="dim")
        yield from lines

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.text)


@dataclass(frozen=True, slots=True)
class Column(Generic[Item]):
    """One column of a table.

    ``rank`` 0 is always shown; other columns are shown while there is room, the lowest rank first, unless all
    their cells are empty. A cell is truncated to ``cap``, and further down to ``floor`` if room is short:
    columns are chosen by that width.
    """

    title: str
    cell: Callable[[Item], Text]
    rank: int = 0
    floor: int | None = None
    cap: int = 40
    is_right: bool = False


def print_table(terminal: Terminal, columns: Sequence[Column[Item]], items: Iterable[Item]) -> None:
    """Print a row for each item: all columns in a pipe, those that fit on a terminal."""
    room = sys.maxsize if terminal.room is None else terminal.room
    rows = [{column.title: column.cell(item) for column in columns} for item in items]
    if not rows:
        return
    widest = {title: max(row[title].cell_len for row in rows) for title in rows[0]}
    caps = {each.title: sys.maxsize if terminal.room is None else each.cap for each in columns}
    wishes = {each.title: max(min(widest[each.title], caps[each.title]), len(each.title)) for each in columns}
    if terminal.room is not None:
        counted_on = {each.title: min(wishes[each.title], each.floor or each.cap) for each in columns}
        columns = that_fit(
            [each for each in columns if widest[each.title] or not each.rank], counted_on, room
        )
    least = {
        each.title: min(wishes[each.title], _NARROWEST if each.floor else sys.maxsize) for each in columns
    }
    fits = sum(least.values()) + _GAP * (len(columns) - 1) <= room
    table = plain_table(show_header=True)
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.is_right else "left",
            no_wrap=column.floor is None,  # rich shrinks the other columns, the widest first
            overflow="ellipsis",
            # rich adds the gap to the width, even for the last column, which has no gap
            min_width=least[column.title] - (_GAP if column is columns[-1] else 0),
            max_width=wishes[column.title] if fits else least[column.title],
        )
    for row in rows:
        for cell in row.values():
            cell.no_wrap, cell.overflow = True, "ellipsis"
        table.add_row(*(row[column.title] for column in columns))
    terminal.show(table, is_fitted=fits)


def that_fit(columns: Sequence[Column[Item]], widths: Mapping[str, int], room: int) -> list[Column[Item]]:
    """The columns that are always shown, and the others that fit with these widths, the lowest rank first."""
    chosen, needed = set(), -_GAP
    for column in sorted(columns, key=lambda column: column.rank):
        width = widths[column.title] + _GAP
        if not column.rank or needed + width <= room:
            needed += width
            chosen.add(column.title)
    return [column for column in columns if column.title in chosen]


def plain_table(*, show_header: bool = False) -> Table:
    """A table without lines between its cells."""
    return Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=show_header)


def print_pairs(
    terminal: Terminal, rows: Iterable[Sequence[Text]], *, header: Sequence[str] = (), most: int | None = None
) -> None:
    """Print rows of names and values, indented; the first column stays whole, the others are wrapped."""
    table = plain_table(show_header=bool(header))
    for title in header:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Wrapped(cell, most) for cell in row))
    terminal.show(table, indent=2)


def styled(text: object, style: str = "") -> Text:
    """``visible`` text for the terminal; markup in it is text like any other."""
    return Text(visible(text), style=style, end="")


def complain(message: object) -> None:
    """Print an error on standard error; line breaks are kept, so that a caret stays under its token."""
    terminal = Terminal(stderr=True)
    first, *rest = visible_lines(without_secrets(str(message)))
    terminal.line(Text.assemble(("wherefrom: ", "bold red"), first))
    for line in rest:
        terminal.line(line)


def remark(message: str) -> None:
    """Print a remark on standard error."""
    Terminal(stderr=True).paragraph(message)


def hint(message: str, command: str = "") -> None:
    """Print advice with a command on one line, if a person reads both output streams."""
    if is_interactive():
        terminal = Terminal(stderr=True)
        if command:
            terminal.line(Text.assemble((f"{message} ", "dim"), (command, "cyan")))
        else:
            terminal.paragraph(message, style="dim")


def is_interactive() -> bool:
    """Whether standard output and standard error are both terminals."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def print_json(value: object) -> None:
    """Print an object as indented JSON."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    print(visible_json(text), flush=True)  # noqa: T201 - without the styles of the console


def use_plain_characters() -> str:
    """Register the error handler that draws with ASCII on streams without Unicode; return its name."""

    def replace(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        chars = error.object[error.start : error.end]
        plain = (_ASCII.get(char) or char.encode("ascii", "backslashreplace").decode() for char in chars)
        return "".join(plain), error.end

    codecs.register_error(_ERROR_HANDLER, replace)
    return _ERROR_HANDLER
