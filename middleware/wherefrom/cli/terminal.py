"""Where output goes: a terminal of some width with colours, or a pipe that gets plain, whole lines."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

import orjson
from rich.console import Console
from rich.text import Text

from .._sanitize import visible_json, visible_lines, without_secrets

_PLAIN: Final = {
    "…": "~", "━": "=", "─": "-", "│": "|", "├": "+", "└": "`", "✓": "+", "✗": "x", "·": ".", "µ": "u",
    "\N{EN DASH}": "-",
}  # fmt: skip
_ERROR_HANDLER: Final = "wherefrom-plain"


class Terminal:
    """Standard output or standard error.

    ``room`` is how many columns there are; ``None`` in a pipe, where lines are as long as they need to be.
    """

    def __init__(self, *, stderr: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=stderr, highlight=False, markup=False, emoji=False)
        self.room = self._console.width if self._console.is_terminal else None

    def line(self, text: Text | str = "", style: str = "") -> None:
        """Print one line as it is, however long."""
        shown = Text(text, style=style) if isinstance(text, str) else text
        shown.rstrip()
        self._console.print(shown, soft_wrap=True)

    def paragraph(
        self, text: Text | str, *, indent: int = 0, style: str = "", most: int | None = None
    ) -> None:
        """Print text wrapped to the room there is, at most ``most`` lines of it on a terminal."""
        shown = Text(text, style=style) if isinstance(text, str) else text
        for wrapped in self.wrapped(shown, None if self.room is None else self.room - indent, most):
            self.line(Text(" " * indent) + wrapped)

    def busy(self, message: str) -> AbstractContextManager[object]:
        """Say so while something takes its time; nothing where nobody looks on."""
        return nullcontext() if self.room is None else self._console.status(message)

    @contextmanager
    def progress(self, message: str) -> Iterator[Callable[[float, str], None]]:
        """A bar, which is gone in the end; what is yielded moves it to a share of all, with a remark."""
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn(message), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        remark = TextColumn("{task.description}", markup=False)
        with Progress(*columns, remark, console=self._console, transient=True) as bar:
            task = bar.add_task("", total=1.0)
            yield lambda done, description: bar.update(task, completed=done, description=description)

    def wrapped(self, text: Text, width: int | None, most: int | None = None) -> list[Text]:
        """The text in lines of at most ``width``; beyond ``most`` of them the last ends in ``…``."""
        if width is None:
            return list(text.split("\n", allow_blank=True))
        lines = list(text.wrap(self._console, max(width, 1), overflow="fold"))
        if most is not None and len(lines) > most:
            lines = lines[:most]
            lines[-1].rstrip()
            lines[-1].truncate(max(width - 1, 1))
            lines[-1].append("…", style="dim")
        return lines


def fitted(natural: Sequence[int], floors: Sequence[int], room: int | None, gap: int = 2) -> list[int]:
    """Widths for columns: as wide as they like, or shrunk, the widest first, until all fit the room."""
    if room is None:
        return list(natural)
    widths = [min(wish, room) for wish in natural]
    excess = sum(widths) + gap * (len(widths) - 1) - room
    while excess > 0:
        shrinkable = [at for at, width in enumerate(widths) if width > floors[at]]
        if not shrinkable:
            break
        widths[max(shrinkable, key=widths.__getitem__)] -= 1
        excess -= 1
    return widths


def complain(message: object) -> None:
    """Say on standard error what is wrong; the lines of the message stay lines, for a caret to point up."""
    terminal = Terminal(stderr=True)
    first, *rest = visible_lines(without_secrets(str(message)))
    terminal.line(Text.assemble(("wherefrom: ", "bold red"), first))
    for line in rest:
        terminal.line(line)


def remark(message: str) -> None:
    """Say on standard error what helps to go on."""
    Terminal(stderr=True).paragraph(message)


def hint(message: str) -> None:
    """Say something to a person who looks on; nothing where output goes to a file or another program."""
    if is_looked_on():
        Terminal(stderr=True).paragraph(message, style="dim")


def hint_command(message: str, command: str) -> None:
    """Name a command to a person who looks on, on one line, however long, so that it can be copied."""
    if is_looked_on():
        Terminal(stderr=True).line(Text.assemble((f"{message} ", "dim"), (command, "cyan")))


def is_looked_on() -> bool:
    """Whether both what is found and what is remarked go to a terminal."""
    return sys.stdout.isatty() and sys.stderr.isatty()


def print_object(value: object) -> None:
    """Print JSON over several lines."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    print(visible_json(text), flush=True)  # noqa: T201 - as it is, without the styles of the console


def plain_characters() -> str:
    """The name of an error handler for streams that cannot encode everything: it draws with ASCII."""
    codecs.register_error(_ERROR_HANDLER, _plain)
    return _ERROR_HANDLER


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_in_ascii(error.object[error.start : error.end])), error.end


def _in_ascii(text: str) -> Iterator[str]:
    for char in text:
        yield _PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode()
