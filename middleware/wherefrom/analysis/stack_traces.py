"""Stack traces in the form of Python's ``traceback``: exceptions, causes, groups and frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

_TITLE: Final = "Traceback (most recent call last):"
_FRAME: Final = re.compile(r'File "(?P<file>[^"\n]{1,500})", line \d+(?:, in (?P<name>[^\n]{1,200}))?')
_LIBRARY: Final = re.compile(r"site-packages|dist-packages|[/\\]lib(?:64)?[/\\]python\d|<frozen ")
_PACKAGE: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Raised:
    """One exception of a stack: the failure itself, one of its causes, or a member of a group.

    ``relation`` is how it is related to the failure, such as ``caused by``; it is empty for the failure
    itself. ``text`` is type and message, and ``frames`` are the lines of its stack.
    """

    relation: str
    text: str
    frames: tuple[str, ...]

    @property
    def title(self) -> str:
        """The first line of type and message."""
        return self.text.partition("\n")[0]


@dataclass(frozen=True, slots=True)
class FrameRun:
    """Successive frames of one kind: ``text`` is their lines, ``count`` their number.

    ``kind`` is ``app``, ``library`` for installed packages and the standard library, or ``own`` for
    Wherefrom itself.
    """

    kind: str
    count: int
    text: str


def read_stack(stack: str) -> list[Raised]:
    """The failure, members of its group, then causes, the nearest first; from any tracer."""
    found: list[tuple[int, str, Raised]] = []
    for block, separator in _blocks(stack):
        raised = _raised(block)
        if raised is not None:
            found.append((_margin(block), _FOLLOWING.get(separator, ""), raised))
    if not found:
        return []
    own = max((place for place, (margin, _, _) in enumerate(found) if margin <= _OUTER), default=0)
    causes = []
    for margin, following, raised in found[:own][::-1]:
        relation = following if margin <= _OUTER else _IN_CAUSE
        causes.append(Raised(relation or _IN_CAUSE, raised.text, raised.frames))
    members = [Raised(_MEMBER, raised.text, raised.frames) for _, _, raised in found[own + 1 :]]
    return [found[own][2], *members, *causes]


_FOLLOWING: Final = {
    "The above exception was the direct cause of the following exception:": "caused by",
    "During handling of the above exception, another exception occurred:": "while handling",
}
_MEMBER: Final = "in the group"
_IN_CAUSE: Final = "before"
_OUTER: Final = 3  # the margin of a group that is no member of another
_MARGIN: Final = re.compile(r" *[|+] ?")
_MEMBER_LINE: Final = re.compile(r" *(?:\+-)?\+-{16}[-. \d]*")


def _blocks(stack: str) -> Iterator[tuple[list[str], str]]:
    """The lines of each exception, with the line that separates it from the next one."""
    block: list[str] = []
    for line in stack.splitlines():
        bare = _bare(line)
        if bare in _FOLLOWING or _MEMBER_LINE.fullmatch(line):
            yield block, bare
            block = []
            continue
        if bare.endswith(_TITLE) and any(map(str.strip, block)):
            yield block, ""
            block = []
        block.append(line)
    yield block, ""


def _bare(line: str) -> str:
    return line[_margin([line]) :]


def _margin(block: Sequence[str]) -> int:
    found = _MARGIN.match(block[0]) if block else None
    return 0 if found is None else found.end()


def _raised(block: Sequence[str]) -> Raised | None:
    """Read one exception: its title, indented lines of frames, and then type and message."""
    lines = [bare for line in block if (bare := _bare(line).rstrip())]
    if lines and lines[0].endswith(_TITLE):
        del lines[0]
    count = next((place for place, line in enumerate(lines) if not line.startswith("  ")), len(lines))
    return Raised("", "\n".join(lines[count:]), tuple(lines[:count])) if lines else None


def place_of(stack: str) -> str:
    """The innermost frame outside of libraries, as ``file:function``; any innermost one if there is none."""
    frames = [frame for frame in _FRAME.finditer(stack) if frame["name"] is not None]
    own = [frame for frame in frames if not _LIBRARY.search(frame["file"])] or frames
    if not own:
        return ""
    file = re.split(r"[/\\]", own[-1]["file"])[-2:]
    return f"{'/'.join(file)}:{own[-1]['name'].strip()}"


def frame_runs(lines: Sequence[str]) -> list[FrameRun]:
    """The frames of one exception in runs of the same kind, in the order of the lines."""
    runs: list[tuple[str, int, list[str]]] = []
    kind = "app"
    for line in lines:
        frame = _FRAME.match(line.lstrip())
        if frame is not None:
            kind = _kind_of(frame["file"])
        if not runs or runs[-1][0] != kind:
            runs.append((kind, 0, []))
        _, count, some = runs[-1]
        some.append(line)
        runs[-1] = kind, count + (frame is not None), some
    return [FrameRun(kind, count, "\n".join(some)) for kind, count, some in runs]


def _kind_of(file: str) -> str:
    path = file.replace("\\", "/")
    package, _, module = path.rpartition(f"/{_PACKAGE.name}/")
    if package and module in _own_modules():
        return "own"
    return "library" if _LIBRARY.search(file) else "app"


@cache
def _own_modules() -> frozenset[str]:
    """The files of Wherefrom, relative to its package, wherever another process has it installed."""
    return frozenset(path.relative_to(_PACKAGE).as_posix() for path in _PACKAGE.rglob("*.py"))
