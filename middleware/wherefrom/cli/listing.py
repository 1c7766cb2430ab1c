"""The table of traces: which columns there are, and which of them a terminal has room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.text import Text

from .. import keys
from .._units import duration, full_moment, short_moment
from ..model import Trace, TraceInfo, TraceState
from .grid import Column, print_grid
from .terminal import Terminal
from .text import styled

STATE_STYLES: Final = {TraceState.OK: "green", TraceState.ERROR: "bold red", TraceState.IN_PROGRESS: "yellow"}

_GAP: Final = 2
_SHORT_ID: Final = len("tr-") + 16  # 48 bits of time, then 16 random ones: enough for `wherefrom show`
_NAME_FLOOR: Final = 8
_NAME_WISH: Final = 26
_LIVE_NAME: Final = 22


@dataclass(frozen=True, slots=True)
class Entry:
    """One trace of the table; what is absent is empty."""

    request_time: int
    state: TraceState
    name: str
    duration_ns: int | None
    trace_id: str
    request_id: str
    metadata: dict[str, str]

    @classmethod
    def of(cls, trace: Trace) -> Entry:
        """What the table shows of a trace."""
        info = trace.info
        shown = (keys.APP_VERSION, keys.ENVIRONMENT, keys.USER, keys.SESSION)
        return cls(
            info.request_time,
            info.state,
            info.name or "",
            trace.duration_ns,
            info.trace_id,
            info.client_request_id or "",
            {key: info.trace_metadata[key] for key in shown if key in info.trace_metadata},
        )


_PLAIN: Final = Column()


@dataclass(frozen=True, slots=True)
class _Field:
    title: str
    cell: Callable[[Entry], Text]
    column: Column = _PLAIN
    cap: int = 40
    rank: int = 0  # 0: always shown; the others as the room allows, the lowest first


def _metadata(key: str) -> Callable[[Entry], Text]:
    return lambda entry: styled(entry.metadata.get(key, ""))


def _state(entry: Entry) -> Text:
    return Text(entry.state.value, style=STATE_STYLES.get(entry.state, ""))


def _duration(entry: Entry) -> Text:
    return Text("" if entry.duration_ns is None else duration(entry.duration_ns))


_FIELDS: Final = (
    _Field("state", _state, cap=17),
    _Field("name", lambda entry: styled(entry.name), Column(_NAME_FLOOR)),
    _Field("duration", _duration, Column(is_right=True)),
    _Field("version", _metadata(keys.APP_VERSION), Column(8), 16, rank=1),
    _Field("environment", _metadata(keys.ENVIRONMENT), Column(11), 16, rank=5),
    _Field("user", _metadata(keys.USER), Column(8), 24, rank=2),
    _Field("session", _metadata(keys.SESSION), Column(8), 24, rank=3),
    _Field("request id", lambda entry: styled(entry.request_id), Column(36), 36, rank=4),
)


_LIVE: Final = {
    "time": 8, "state": 5, "duration": 11, "version": 8, "environment": 11, "user": 12, "session": 12,
    "request id": 36, "trace id": _SHORT_ID - len("tr-"),
}  # fmt: skip


def print_traces(terminal: Terminal, entries: Sequence[Entry], now: datetime) -> None:
    """Print the table: whole in a pipe, else what fits."""
    fields = _whole() if terminal.room is None else _that_fit(_on_terminal(now), entries, terminal.room)
    rows = [[field.cell(entry) for field in fields] for entry in entries]
    if terminal.room is not None:
        for row in rows:
            for field, cell in zip(fields, row, strict=True):
                cell.truncate(field.cap, overflow="ellipsis")
    columns = [field.column for field in fields]
    print_grid(terminal, columns, rows, header=[field.title for field in fields])


class LiveTable:
    """Prints traces as they come, in columns that stay as wide as they are."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._widths: dict[str, int] = {}

    def add(self, entries: Sequence[Entry], now: datetime) -> None:
        """Print some more, the titles before the first."""
        room = self._terminal.room
        fields = _whole() if room is None else _on_terminal(now)
        if not self._widths:
            self._widths = _live_widths(room)
            self._print([Text(field.title, style="bold") for field in fields], fields)
        for entry in entries:
            self._print([field.cell(entry) for field in fields], fields)

    def _print(self, cells: Sequence[Text], fields: Sequence[_Field]) -> None:
        parts = []
        for cell, field in zip(cells, fields, strict=True):
            width = self._widths.get(field.title)
            if width is None:
                continue
            if self._terminal.room is not None and field.title != "time":
                cell.truncate(width, overflow="ellipsis")
            blank = Text(" " * (width - cell.cell_len))
            parts.append(blank + cell if field.column.is_right else cell + blank)
        self._terminal.line(Text(" " * _GAP).join(parts))


def state_text(info: TraceInfo) -> Text:
    """The state in its colour."""
    return Text(info.state.value, style=STATE_STYLES.get(info.state, ""))


def _live_widths(room: int | None) -> dict[str, int]:
    """How wide the columns are that there is room for, whatever will stand in them."""
    widths = dict(_LIVE)
    if room is None:
        return widths | {"name": _NAME_WISH}
    needed = _LIVE_NAME + sum(width + _GAP for width in widths.values())
    for field in sorted(_FIELDS, key=lambda field: -field.rank):
        if field.rank and needed > room:
            needed -= widths.pop(field.title) + _GAP
    return widths | {"name": max(room - needed + _LIVE_NAME, _NAME_FLOOR)}


def _whole() -> list[_Field]:
    time = _Field("time", lambda entry: Text(full_moment(entry.request_time)))
    return [time, *_FIELDS, _Field("trace id", lambda entry: styled(entry.trace_id))]


def _on_terminal(now: datetime) -> list[_Field]:
    time = _Field("time", lambda entry: Text(short_moment(entry.request_time, now), style="dim"), Column(8))
    trace_id = _Field(
        "trace id", lambda entry: styled(entry.trace_id[:_SHORT_ID].removeprefix("tr-"), "cyan"), Column(16)
    )
    return [time, *_FIELDS, trace_id]


def _that_fit(fields: list[_Field], entries: Sequence[Entry], room: int) -> list[_Field]:
    """The fields that are always shown, and those of the others that still fit and say something."""
    chosen = {field.title for field in fields if not field.rank}
    needed = -_GAP
    for field in sorted(fields, key=lambda field: field.rank):
        widest = max((field.cell(entry).cell_len for entry in entries), default=0)
        wish = max(min(widest, field.cap), len(field.title))
        least = min(wish, _NAME_WISH) if field.title == "name" else min(wish, max(field.column.floor, 8))
        if not field.rank:
            needed += wish + _GAP if field.title != "name" else least + _GAP
        elif widest and needed + least + _GAP <= room:
            needed += least + _GAP
            chosen.add(field.title)
    return [field for field in fields if field.title in chosen]
